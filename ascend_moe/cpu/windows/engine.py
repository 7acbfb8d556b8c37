"""The native half, loaded by ctypes: the library that the package's build made of ``native/`` (`build`).

Where it is missing, or was made of other sources than those beside it, rows travel over torch.distributed.
"""

from __future__ import annotations

import ctypes
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from torch import Tensor

from ascend_moe.cpu.distributed.messages import MESSAGE
from ascend_moe.cpu.windows import build
from ascend_moe.cpu.windows.control import BLOCK, HEAD
from ascend_moe.cpu.windows.fields import (
    PEER_WORDS,
    CombineFields,
    DispatchFields,
    ExpectedFields,
    MailFields,
    OutputFields,
    RepeatFields,
)
from ascend_moe.cpu.windows.repeated.tensors import Tensors

_AGAIN: Final = "install the package again, from a wheel or where g++ is"
_log = logging.getLogger("ascend_moe")


class Native(NamedTuple):
    """The functions of the library."""

    dispatch: Callable[[int], int]
    combine: Callable[[int], int]
    far_dispatch: Callable[[int], int]
    far_combine: Callable[[int], int]
    arrive: Callable[[int, int], None]
    wait: Callable[[int, int, int], int]
    new_shelf: Callable[[int, int], int]
    repeat: Callable[[Tensors, int], tuple[Tensor, ...] | None]
    finished: Callable[[int], None]


@functools.cache
def native() -> Native | None:
    """The library; None where it cannot be had (said once in the log)."""
    try:
        return load(build.LIBRARY)
    except (OSError, AttributeError) as error:  # AttributeError: a library without the functions
        _log.warning("the CPU operators cannot share memory: %s", error)
        return None


def load(path: Path) -> Native:
    """The functions of a built library. Raises OSError when there is none, or it is not of these sources."""
    if not path.is_file():
        raise OSError(f"{path.name} was not built, for want of a C++ compiler; {_AGAIN}")
    library = ctypes.CDLL(str(path))
    sizes = (ctypes.c_int64 * 10)()
    library.moe_sizes(sizes)
    structures = (DispatchFields, CombineFields, OutputFields, ExpectedFields, RepeatFields)
    expected = [HEAD.itemsize, BLOCK.itemsize, *map(ctypes.sizeof, structures)]
    expected += [MESSAGE.itemsize, PEER_WORDS * 8, ctypes.sizeof(MailFields)]
    library.moe_sources.restype = ctypes.c_int64
    of_others = build.SOURCES.is_dir() and library.moe_sources() != build.digest()
    if of_others or list(sizes) != expected:
        raise OSError(f"{path.name} was built from other sources than these; {_AGAIN}")
    with_the_lock = ctypes.PyDLL(str(path))  # the interpreter's
    address, integer = ctypes.c_void_p, ctypes.c_int64
    return Native(
        dispatch=_function(library.moe_dispatch, integer, address),
        combine=_function(library.moe_combine, integer, address),
        far_dispatch=_function(library.moe_far_dispatch, integer, address),
        far_combine=_function(library.moe_far_combine, integer, address),
        arrive=_function(library.moe_arrive, None, address, ctypes.c_int32),
        wait=_function(library.moe_wait, ctypes.c_int, address, ctypes.c_int32, integer),
        new_shelf=_function(with_the_lock.moe_new_shelf, address, address, integer),
        repeat=_function(with_the_lock.moe_repeat, ctypes.py_object, ctypes.py_object, address),
        finished=_function(with_the_lock.moe_finished, None, address),
    )


def _function(function: Any, result: Any, *arguments: Any) -> Any:
    function.restype, function.argtypes = result, arguments
    return function
