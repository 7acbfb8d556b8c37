"""``ascend-moe run``: an unmodified torch_npu script on the virtual NPU.

The process becomes the script (exec), with the environment that CANN's ``set_env.sh`` would make. So
the script's processes find the stand-in however they are started, and its exit code is the command's.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the subcommand; all that follows them belongs to the script."""
    parser.epilog = (
        "ASCEND_MOE_VNPU_CANN=8.5.0, 9.0.0 or 9.1.0 chooses the CANN that is played; "
        "docs/virtual-npu.md has all variables"
    )
    parser.add_argument(
        "--product", choices=("A2", "A3"), help="default: ASCEND_MOE_PRODUCT, else A3"
    )
    parser.add_argument("--devices", type=int, metavar="N", help="devices to show (default 16)")
    parser.add_argument(
        "--servers",
        type=int,
        metavar="N",
        help="servers over which the devices are split evenly, in order: at most 8 each on A2, 16 on A3, which "
        "reach each other by RDMA alone (default: full ones on A2, one super-pod on A3)",
    )
    parser.add_argument("--force", action="store_true", help="even where a real CANN is installed")
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="SCRIPT [ARGS]",
        help="a Python script and its arguments; a module as -- -m MODULE [ARGS]",
    )


def run(arguments: argparse.Namespace) -> int:
    """Become the script. Returns, with 1 or 2, only when that is not possible."""
    command, environment, code = _prepare(arguments)
    if code == 0:
        os.execve(sys.executable, [sys.executable, *command], environment)
    return code


def _prepare(arguments: argparse.Namespace) -> tuple[list[str], dict[str, str], int]:
    """What to execute and with which environment, or an exit code other than 0."""
    from ascend_moe.vnpu import VirtualNpuError
    from ascend_moe.vnpu.activation import environment_of_run

    command: list[str] = arguments.command
    command = command[1:] if command[:1] == ["--"] else command
    if not command:
        print("ascend-moe run: which script? See ascend-moe run --help", file=sys.stderr)
        return [], {}, 2
    if not command[0].startswith("-") and not Path(command[0]).exists():
        print(f"ascend-moe run: {command[0]} does not exist", file=sys.stderr)
        return [], {}, 2
    try:
        changes = environment_of_run(
            arguments.product, arguments.devices, arguments.servers, force=arguments.force
        )
    except VirtualNpuError as error:
        print(f"ascend-moe run: {error}", file=sys.stderr)
        return [], {}, 1
    return command, {**os.environ, **changes}, 0
