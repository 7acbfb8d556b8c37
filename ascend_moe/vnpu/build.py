"""Build the virtual NPU once per machine and wheel, into the user's cache.

There are two parts, because the second changes far more often than the first:

* the *home*, a small CANN installation: ``lib64/`` with the stand-in libraries, ``opp/``,
  ``compiler/version.info`` and ``runtime/``, which torch_npu looks for;
* the *operators*, a custom operator package: ``vendors/ascend_moe/op_api/lib/libcust_opapi.so``.

The name of each part ends in a hash of everything that goes into it: sources, versions of the
wheels, the compiler. A build happens in a directory of its own and is renamed into place when it is
complete, under a lock, so that any number of processes may start at once and none ever sees half of
a build.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ascend_moe.vnpu.errors import VirtualNpuError
from ascend_moe.vnpu.wheel import Wheels, installed_wheels

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
            for path in sorted((self.sources / room).rglob("*")):
                if path.suffix in SOURCE_SUFFIXES and path.is_file():
                    digest.update(str(path.relative_to(self.sources)).encode())
                    digest.update(path.read_bytes())
        version = subprocess.run(
            [self.compiler, "--version"], capture_output=True, text=True, check=True
        ).stdout
        for text in (
            self.wheels.versions,
            str(self.wheels.torch_npu),
            version,
            CANN_VERSION,
            *more,
        ):
            digest.update(text.encode())
        return digest.hexdigest()[:16]


def virtual_npu() -> VirtualNpu:
    """Both parts, built first where necessary.

    Raises VirtualNpuError when torch_npu, g++ or cmake is missing or the build fails.
    """
    wheels = installed_wheels()
    chain = Toolchain(source_directory(), wheels, _tool("g++", "apt-get install g++"))
    cache = cache_directory()
    home_key = chain.key(("standin",))
    home = _part(chain, "standin", cache / f"vnpu-{home_key}", home=None)
    operators_key = chain.key(("op_api", "device"), home_key)
    operators = _part(chain, "op_api", cache / f"vnpu-operators-{operators_key}", home=home)
    return VirtualNpu(home, operators / "vendors" / "ascend_moe")


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/ascend-moe``, as a rule ``~/.cache/ascend-moe``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ascend-moe"


def source_directory() -> Path:
    """The C++ sources: in an installed wheel inside the package, in a clone beside it."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "_kernels", package.parent / "kernels"):
        if (candidate / "standin" / "CMakeLists.txt").is_file():
            return candidate
    raise VirtualNpuError("the sources of the virtual NPU (kernels/standin) are not installed")


def _tool(name: str, command: str) -> str:
    """An executable from PATH, or one that pip put beside this Python."""
    path = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None:
        raise VirtualNpuError(f"the virtual NPU needs {name}, which is not installed; {command}")
    return path


def _part(chain: Toolchain, room: str, target: Path, home: Path | None) -> Path:
    if target.is_dir():
        return target
    cmake = _tool("cmake", "pip install cmake")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.with_suffix(".lock")):
        if not target.is_dir():
            say = f"ascend-moe: building the virtual NPU ({room}) into {target}, once"
            print(say, file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="building-", dir=target.parent) as scratch:
                _build(chain, room, Path(scratch), home, cmake).rename(target)
    return target


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time; ends with the process however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
    _run([cmake, "-S", str(chain.sources / room), "-B", str(build), *options])
    _run([cmake, "--build", str(build), "--parallel", jobs])
    _run([cmake, "--install", str(build)])
    return installed


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        raise VirtualNpuError(f"building the virtual NPU failed: {' '.join(command)}")
