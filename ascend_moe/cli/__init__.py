"""The ascend-moe command: one small file per subcommand, imported only when it is the chosen one.

Every file has `add_arguments(parser)` and `run(arguments) -> exit code`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

COMMANDS = {
    "demo": "dispatch, expert and combine over CPU ranks, compared with the reference",
    "buffsize": "the HCCL_BUFFSIZE that a deployment needs",
    "check": "a call described in a JSON file, against the rules",
    "run": "an unmodified torch_npu script on the virtual NPU, without hardware",
    "env": "the export lines that put our kernel library before CANN's",
    "explain": "a rule, or the log of a failed run: what it means and what to do",
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
        code: int = parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` closed our output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code
