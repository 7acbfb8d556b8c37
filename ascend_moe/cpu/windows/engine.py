"""The native half: built from ``native/`` by g++ on first use into the user's cache, and loaded by ctypes.

Without a compiler (``CXX`` or g++), or with one that fails, rows of this rank's groups travel over torch.distributed.
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
from typing import Any, Final, NamedTuple

from torch import Tensor

from ascend_moe.cpu.windows.control import BLOCK, HEAD
from ascend_moe.cpu.windows.fields import (
    CombineFields,
    DispatchFields,
    ExpectedFields,
    OutputFields,
    RepeatFields,
)
from ascend_moe.cpu.windows.tensors import Tensors
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
    new_shelf: Callable[[int, int], int]
    repeat: Callable[[Tensors, int], tuple[Tensor, ...] | None]
    finished: Callable[[int], None]


@functools.cache
def native() -> Native | None:
    """The library, built first where necessary; None where it cannot be (said once in the log)."""
    compiler = _compiler()
    if compiler is None:
        _log.warning("no C++ compiler (CXX or g++): the CPU operators cannot share memory")
        return None
    try:
        return load(_built(compiler))
    except (BuildError, OSError) as error:
        _log.warning("the CPU operators cannot share memory: %s", error)
        return None


def load(path: Path) -> Native:
    """The functions of a built library. Raises OSError when it is not of these sources."""
    library = ctypes.CDLL(str(path))
    sizes = (ctypes.c_int64 * 7)()
    library.moe_sizes(sizes)
    structures = (DispatchFields, CombineFields, OutputFields, ExpectedFields, RepeatFields)
    expected = [HEAD.itemsize, BLOCK.itemsize, *map(ctypes.sizeof, structures)]
    if list(sizes) != expected:
        raise OSError(f"{path} has structures of {list(sizes)} bytes, needed: {expected}")
    with_the_lock = ctypes.PyDLL(str(path))  # the interpreter's
    address, integer = ctypes.c_void_p, ctypes.c_int64
    return Native(
        dispatch=_function(library.moe_dispatch, integer, address),
        combine=_function(library.moe_combine, integer, address),
        arrive=_function(library.moe_arrive, None, address, ctypes.c_int32),
        wait=_function(library.moe_wait, ctypes.c_int, address, ctypes.c_int32, integer),
        new_shelf=_function(with_the_lock.moe_new_shelf, address, address, integer),
        repeat=_function(with_the_lock.moe_repeat, ctypes.py_object, ctypes.py_object, address),
        finished=_function(with_the_lock.moe_finished, None, address),
    )


def _function(function: Any, result: Any, *arguments: Any) -> Any:
    function.restype, function.argtypes = result, arguments
    return function


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
