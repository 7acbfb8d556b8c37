"""``ascend-moe env``: the export lines that put our kernel library before CANN's, for ``eval``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys

from ascend_moe.hardware.cann import STAND_IN
from ascend_moe.hardware.kernel_library import HOW_TO_BUILD, exports, installed_vendor
from ascend_moe.native import BuildError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        'The export lines that put our kernel library before CANN\'s: eval "$(ascend-moe env)", '
        "before Python starts, because torch_npu reads them once, when it is imported."
    )
    parser.epilog = "exit code: 0 printed, 1 no library is installed"


def run(arguments: argparse.Namespace) -> int:
    vendor, problem = None, f"our kernel library is not built here; {HOW_TO_BUILD}"
    try:
        vendor = installed_vendor()
    except BuildError as error:
        problem = str(error)
    if STAND_IN in os.environ:
        vendor, problem = None, "this is the virtual NPU, which has set its variables itself"
    if vendor is None:
        print(f"ascend-moe env: {problem}", file=sys.stderr)
        return 1
    for name, value in exports(vendor, os.environ).items():
        print(f"export {name}={shlex.quote(value)}")
    return 0
