"""The native half: built from ``native/`` by g++ on first use into the user's cache, and loaded by ctypes.

Without a compiler (``CXX`` or g++), or with one that fails, the steps run in torch and numpy: same memory, same
protocol, so that ranks with and without may even share a group.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ascend_moe.cpu.windows.control import BLOCK, HEAD
from ascend_moe.cpu.windows.fields import CombineFields, DispatchFields
from ascend_moe.native import BuildError, cache_directory, find_tool, locked, replace_directory

SOURCES: Final = Path(__file__).with_name("native")
FLAGS: Final = (
    *("-std=c++17", "-O3", "-fPIC", "-shared"),
    # The bits of the results: no fused multiply-add. The other two change no result.
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
)
_log = logging.getLogger("ascend_moe")


class Native(NamedTuple):
    """The functions of the library."""

    dispatch: Callable[[int], int]
    combine: Callable[[int], int]
    arrive: Callable[[int, int], None]
    wait: Callable[[int, int, int], int]


@functools.cache
def native() -> Native | None:
    """The library, built first where necessary; None where it cannot be (said once in the log)."""
    compiler = _compiler()
    if compiler is None:
        _log.warning(
            "no C++ compiler (CXX or g++): the CPU operators run without their native part"
        )
        return None
    try:
        return load(_built(compiler))
    except (BuildError, OSError) as error:
        _log.warning("the CPU operators run without their native part: %s", error)
        return None


def load(path: Path) -> Native:
    """The functions of a built library. Raises OSError when it is not of these sources."""
    library = ctypes.CDLL(str(path))
    sizes = (ctypes.c_int64 * 4)()
    library.moe_sizes(sizes)
    expected = [HEAD.itemsize, BLOCK.itemsize, *map(ctypes.sizeof, (DispatchFields, CombineFields))]
    if list(sizes) != expected:
        raise OSError(f"{path} has structures of {list(sizes)} bytes, needed: {expected}")
    for name in ("moe_dispatch", "moe_combine"):
        function = getattr(library, name)
        function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_int64
    library.moe_arrive.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    library.moe_arrive.restype = None
    library.moe_wait.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64]
    library.moe_wait.restype = ctypes.c_int
    return Native(library.moe_dispatch, library.moe_combine, library.moe_arrive, library.moe_wait)


def compile_library(compiler: Sequence[str], library: Path, *, more: Sequence[str] = ()) -> None:
    """Raises BuildError with the compiler's words."""
    command = [*compiler, *FLAGS, *more, str(SOURCES / "windows.cpp"), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{shlex.join(command)} failed:\n{done.stderr.strip()[-2000:]}")


def _compiler() -> list[str] | None:
    words = shlex.split(os.environ.get("CXX") or "g++")
    path = find_tool(words[0])
    return [path, *words[1:]] if path else None


def _built(compiler: list[str]) -> Path:
    """The name ends in a hash of all that decides the result."""
    digest = hashlib.sha256()
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.name.encode() + source.read_bytes())
    try:
        version = subprocess.run(
            [*compiler, "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"{shlex.join(compiler)} --version: {error}") from None
    for text in (*FLAGS, *compiler, version, platform.machine()):
        digest.update(text.encode())
    target = cache_directory() / f"cpu-{digest.hexdigest()[:16]}"
    library = target / "windows.so"
    if not library.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_suffix(".lock")):
            if not library.is_file():
                replace_directory(target, functools.partial(_build, compiler))
    return library


def _build(compiler: list[str], scratch: Path) -> Path:
    built = scratch / "built"
    built.mkdir()
    compile_library(compiler, built / "windows.so")
    return built
