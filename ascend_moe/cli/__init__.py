"""The ascend-moe command: one small file per subcommand, imported only when it is the chosen one.

Every file has `add_arguments(parser)` and `run(arguments) -> exit code`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from ascend_moe.cli.streams import give_up_output, require_output

COMMANDS = {
    "demo": "dispatch, expert and combine over CPU ranks, compared with the reference",
    "buffsize": "the HCCL_BUFFSIZE that a deployment needs",
    "check": "a call described in a JSON file, against the rules",
    "run": "an unmodified torch_npu script on the virtual NPU, without hardware",
    "env": "the export lines that put our kernel library before CANN's",
    "explain": "a rule, or the log of a failed run: what it means and what to do",
    "stragglers": "recorded performance_info tensors: who waits for whom, which rank is slow",
    "doctor": "what is here, and which known problems wait",
}
PROLOGUE = """MoE dispatch and combine for Ascend NPUs: checks, sizes and a CPU executor."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Usage errors exit with 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _Parser(prog="ascend-moe", description=PROLOGUE)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = words[0] if words and words[0] in COMMANDS else None
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name == chosen:
            module = importlib.import_module(f"ascend_moe.cli.{name}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    parsed = parser.parse_args(words)
    try:
        if chosen != "run":  # which leaves its streams to the script
            require_output()
        code: int = parsed.run(parsed)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # `| head` closed our output
        give_up_output()
        return 0
    except OSError as error:  # a full disk, a closed stream
        give_up_output()
        return _failed(parsed.command, error.strerror or str(error))
    except MemoryError:
        return _failed(parsed.command, "there is not enough memory for that")
    return code


def _failed(command: str, reason: str) -> int:
    """Neither yes nor no: 1 would be an answer."""
    print(f"ascend-moe {command}: {' '.join(reason.split())}", file=sys.stderr)
    return 2
