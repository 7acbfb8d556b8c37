"""Build our kernel library for the NPU and install it where ascend_moe finds it.

    python -m ascend_moe.hardware.build [--product A3] [--check]       (in a clone: scripts/build_kernels npu-a3)

Runs the CMake preset ``npu-a2`` or ``npu-a3`` of ``kernels/``, which needs CANN's toolkit but no NPU. What is missing
is said at once, one line each. The library is looked at before it replaces an older one: it must export every
generation of both operators.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ascend_moe.hardware.cann import STAND_IN, cann_home, cann_version, cann_version_text
from ascend_moe.hardware.kernel_library import (
    BUILT,
    LIBRARY,
    PRESETS,
    VENDOR,
    installation,
    preset,
    source_key,
)
from ascend_moe.hardware.lookup import CUSTOM, OPERATORS, Candidate
from ascend_moe.native import (
    BuildError,
    find_tool,
    locked,
    make_own,
    output_of,
    replace_directory,
    run_build,
)
from ascend_moe.native import source_directory as sources

OLDEST_CANN = (8, 5)
OLDEST_CMAKE = (3, 21)
GENERATIONS = {2, 3, 4}
ASC_PACKAGE = Path("compiler/tikcpp/ascendc_kernel_cmake")
ASC_CONFIGS = ("asc-config.cmake", "ASCConfig.cmake")  # 9.x, 8.5


def main(arguments: Sequence[str] | None = None) -> int:
    """0 built or nothing missing, 1 not."""
    parser = argparse.ArgumentParser(
        prog="python -m ascend_moe.hardware.build",
        description="Build our kernel library for the NPU (Atlas A2 or A3) and install it.",
        epilog="exit code: 0 built, 1 something is missing or the build failed",
    )
    parser.add_argument(
        "--product",
        choices=sorted(PRESETS),
        help="default: ASCEND_MOE_PRODUCT, else the NPU here, else A3",
    )
    parser.add_argument("--check", action="store_true", help="only say what is missing")
    options = parser.parse_args(arguments)
    try:
        name = preset(options.product)
    except ValueError as error:
        print(f"build_kernels: {error}", file=sys.stderr)
        return 1
    lacks = missing(os.environ)
    for line in lacks:
        print(f"build_kernels {name}: missing: {line}", file=sys.stderr)
    if lacks:
        return 1
    if options.check:
        print(f"build_kernels {name}: nothing is missing")
        return 0
    try:
        vendor = build(options.product)
    except BuildError as error:
        print(f"build_kernels {name}: {error}", file=sys.stderr)
        return 1
    print(f'installed {vendor}\nput it before CANN\'s kernels: eval "$(ascend-moe env)"')
    return 0


def missing(env: Mapping[str, str]) -> list[str]:
    """What the preset needs and does not find, one line each."""
    lacks = _missing_of_cann(env)
    cmake = find_tool("cmake")
    if cmake is None or _cmake_version(cmake) < OLDEST_CMAKE:
        lacks.append(f"cmake {'.'.join(map(str, OLDEST_CMAKE))} or later: pip install cmake")
    if find_tool("g++") is None:
        lacks.append("g++: apt-get install g++")
    return lacks


def _missing_of_cann(env: Mapping[str, str]) -> list[str]:
    named = env.get("ASCEND_HOME_PATH")
    if named and env.get(STAND_IN) == named:
        return ["CANN: this shell is on the virtual NPU, whose CANN is a stand-in"]
    home = cann_home(env)
    if home is None:
        return ["CANN's toolkit, 8.5 or later, for example the image quay.io/ascend/cann"]
    if not named:
        return [f"the environment of CANN: source {home}/set_env.sh"]
    version = cann_version(home)
    if version is not None and version < OLDEST_CANN:
        return [f"CANN 8.5 or later: {home} is {cann_version_text(home)}"]
    lacks = []
    if not any((home / ASC_PACKAGE / name).is_file() for name in ASC_CONFIGS):
        lacks.append(
            f"CANN's CMake package for AscendC: no {ASC_CONFIGS[0]} in {home / ASC_PACKAGE}"
        )
    compilers = home / f"{platform.machine()}-linux" / "ccec_compiler" / "bin"
    if shutil.which("bisheng", path=f"{compilers}:{home}:{env.get('PATH', '')}") is None:
        lacks.append(f"the compiler bisheng: neither in {compilers} nor on PATH")
    return lacks


def _cmake_version(cmake: str) -> tuple[int, ...]:
    try:
        found = re.search(rb"(\d+)\.(\d+)", output_of([cmake, "--version"]))
    except BuildError:
        return (0, 0)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def build(product: str | None = None) -> Path:
    """Build for a product (default: the one here) and install; returns the vendor directory.

    Raises BuildError when a command fails, the library is not what it should be, or the cache is not this user's own.
    """
    target = installation(product)
    make_own(target.parent)
    with locked(target.with_suffix(".lock")):
        replace_directory(target, partial(_build, preset(product)))
    return target / VENDOR


def _build(name: str, scratch: Path) -> Path:
    cmake = find_tool("cmake") or "cmake"
    tree, installed = scratch / "build", scratch / "installed"
    prefix = f"-DCMAKE_INSTALL_PREFIX={installed}"
    run_build([cmake, "--preset", name, "-B", str(tree), prefix], directory=sources())
    run_build([cmake, "--build", str(tree), "--parallel", str(min(os.cpu_count() or 1, 8))])
    run_build([cmake, "--install", str(tree)])
    require_operators(installed / VENDOR / LIBRARY)
    (installed / BUILT).write_text(json.dumps(_record(name)))
    return installed


def require_operators(library: Path) -> None:
    """Raise BuildError unless the library exports every generation of both operators."""
    if not library.is_file():
        raise BuildError(f"the build made no {library.name}")
    found = Candidate(library, CUSTOM)
    for operator in OPERATORS:
        lacking = sorted(GENERATIONS - found.generations(operator))
        if lacking:
            names = ", ".join(f"V{number}" for number in lacking)
            raise BuildError(f"the built {library.name} lacks aclnn {operator} {names}")


def _record(name: str) -> dict[str, str | None]:
    home = cann_home()
    return {
        "sources": source_key(),
        "cann": None if home is None else cann_version_text(home),
        "preset": name,
    }


if __name__ == "__main__":
    sys.exit(main())
