"""``python -m kernels.device_check``: every finding as ``file:line: rule: text``, exit status 1 if there is one."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import clang, text_rules, tree_rules
from .findings import Finding

DEVICE = Path(__file__).parents[1] / "device"
MISSING = "no clang++ from 16 on is here (apt-get install clang-16)"


def check(
    device: Path, compiler: str | None, versions: tuple[tuple[int, int], ...] = clang.VERSIONS
) -> list[Finding]:
    """All findings, each once; without a compiler only those of the text."""
    device = device.resolve()
    found = set(text_rules.search(device))
    if compiler is not None:
        compiled = [_of_version(device, compiler, version) for version in versions]
        for version, of_version in zip(versions, compiled, strict=True):
            for finding in of_version:
                everywhere = all(finding in other for other in compiled)
                only = "" if everywhere else " (AscendC {}.{})".format(*version)
                found.add(finding._replace(text=finding.text + only))
    return sorted(found)


def _of_version(device: Path, compiler: str, version: tuple[int, int]) -> set[Finding]:
    diagnostics, tree = clang.compile_device(compiler, device, version)
    return {*diagnostics, *tree_rules.search(tree, device)}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m kernels.device_check", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=DEVICE)
    parser.add_argument("--compiler", action="store_true", help="only print the clang to use")
    options = parser.parse_args()
    compiler = clang.find()
    if options.compiler:
        print(compiler or MISSING)
        return compiler is None
    try:
        found = check(options.folder, compiler)
    except clang.BrokenCompilerError as error:
        print(f"device check: {error}", file=sys.stderr)
        return 1
    for finding in found:
        print(finding)
    if compiler is None:
        required = bool(os.environ.get("REQUIRE_CLANG"))
        outcome = "cannot be made" if required else "is skipped"
        print(f"device check: the device compile {outcome}: {MISSING}", file=sys.stderr)
        return bool(found) or required
    print(f"device check: {len(found) or 'no'} findings, {compiler}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
