"""Build the virtual NPU once per machine and wheel, into the user's cache.

There are two parts, because the second changes far more often than the first:

* the *home*, a small CANN installation: ``lib64/`` with the stand-in libraries, ``opp/``,
  ``compiler/version.info`` and ``runtime/``, which torch_npu looks for;
* the *operators*, a custom operator package: ``vendors/ascend_moe/op_api/lib/libcust_opapi.so``.

The name of each part ends in a hash of everything that goes into it: sources, versions of the
wheels, the compiler.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from ascend_moe.native import (
    BuildError,
    cache_directory,
    find_tool,
    locked,
    make_own,
    output_of,
    replace_directory,
    require_own,
    run_build,
    source_directory,
)
from ascend_moe.vnpu.errors import VirtualNpuError
from ascend_moe.vnpu.wheel import Wheels, installed_wheels, require_all_it_needs

CANN_VERSION = "9.0.0"
SOURCE_SUFFIXES = {".cpp", ".h", ".py", ".txt"}


@dataclass(frozen=True)
class VirtualNpu:
    """The two built parts."""

    home: Path
    vendor: Path  # what ASCEND_CUSTOM_OPP_PATH names


@dataclass(frozen=True)
class Toolchain:
    """What a build needs besides the sources; all of it but cmake decides the result."""

    sources: Path
    wheels: Wheels
    compiler: str

    def key(self, rooms: tuple[str, ...], *more: str) -> str:
        """The hash of a part that is built from these rooms of the sources."""
        digest = hashlib.sha256()
        for room in rooms:
            found = self.sources / room
            for path in [found] if found.is_file() else sorted(found.rglob("*")):
                if path.suffix in SOURCE_SUFFIXES and path.is_file():
                    digest.update(str(path.relative_to(self.sources)).encode())
                    digest.update(path.read_bytes())
        for text in (self.wheels.versions, str(self.wheels.torch_npu)):
            digest.update(text.encode())
        digest.update(output_of([self.compiler, "--version"]))
        for text in (CANN_VERSION, *more):
            digest.update(text.encode())
        return digest.hexdigest()[:16]


def virtual_npu() -> VirtualNpu:
    """Both parts, built first where necessary.

    Raises VirtualNpuError when torch_npu, g++ or cmake is missing, the build fails, the cache is not this user's own,
    or torch_npu needs more.
    """
    try:
        return _virtual_npu()
    except BuildError as error:
        raise VirtualNpuError(f"the virtual NPU cannot be built: {error}") from None


def _virtual_npu() -> VirtualNpu:
    wheels = installed_wheels()
    chain = Toolchain(source_directory(), wheels, _tool("g++", "apt-get install g++"))
    cache = cache_directory()
    home_key = chain.key(("standin", "op_api/entry", "op_api/report.h", "device/moe_limits.h"))
    home = _part(chain, "standin", cache / f"vnpu-{home_key}", home=None)
    require_all_it_needs(home)
    presets = (chain.sources / "CMakePresets.json").read_text()
    operators_key = chain.key(("op_api", "device", "hostsim"), home_key, presets)
    operators = _part(chain, "op_api", cache / f"vnpu-operators-{operators_key}", home=home)
    return VirtualNpu(home, operators / "vendors" / "ascend_moe")


def _tool(name: str, command: str) -> str:
    path = find_tool(name)
    if path is None:
        raise VirtualNpuError(f"the virtual NPU needs {name}, which is not installed; {command}")
    return path


def _part(chain: Toolchain, room: str, target: Path, home: Path | None) -> Path:
    make_own(target.parent)
    if not target.exists():
        cmake = _tool("cmake", "pip install cmake")
        with locked(target.with_suffix(".lock")):
            if not target.exists():
                say = f"ascend-moe: building the virtual NPU ({room}) into {target}, once"
                print(say, file=sys.stderr, flush=True)
                replace_directory(target, lambda scratch: _build(chain, room, scratch, home, cmake))
    require_own(target)
    return target


def _build(chain: Toolchain, room: str, scratch: Path, home: Path | None, cmake: str) -> Path:
    build, installed = scratch / "build", scratch / "installed"
    definitions = {
        "CMAKE_CXX_COMPILER": chain.compiler,
        "CMAKE_INSTALL_PREFIX": installed,
        "Python3_EXECUTABLE": sys.executable,
        "TORCH_ROOT": chain.wheels.torch,
        "TORCH_NPU_ROOT": chain.wheels.torch_npu,
        "STANDIN_HOME": home or installed,
        "CANN_VERSION": CANN_VERSION,
    }
    options = [f"-D{name}={value}" for name, value in definitions.items()]
    jobs = str(min(os.cpu_count() or 1, 8))
    # The operators are the preset "host" of all of kernels/; the stand-in is a project of its own.
    what = [str(chain.sources / room)] if home is None else [str(chain.sources), "--preset", "host"]
    run_build([cmake, "-S", *what, "-B", str(build), *options])
    run_build([cmake, "--build", str(build), "--parallel", jobs])
    run_build([cmake, "--install", str(build)])
    return installed
