"""Outputs in memory that was used before: no page is touched for the first time in a steady state.

The operators return buffers for the worst case, and a fresh page costs several times what is then written to it. So a
process keeps the memory of its last calls and hands it out again, but only when nobody can see it any more: each output
is a numpy array that a tensor's storage refers to, and an array that only this module refers to has no tensor, view,
numpy or dlpack alias left. Nothing is ever reused by age; who keeps outputs gets new memory for the next ones.
"""

from __future__ import annotations

import mmap
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ascend_moe.contract.shapes import TensorSpec

KINDS_KEPT: Final = 16
"""Shapes of outputs for which memory is kept; the one that was not used for longest makes room."""
SETS_PER_KIND: Final = 4
_HUGE_PAGES_FROM: Final = 4 << 20
_MAP: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)


@dataclass
class Outputs:
    """The memory of one call's outputs."""

    arrays: tuple[NDArray[Any], ...]
    views: tuple[torch.dtype | None, ...]
    """What numpy has no name for is an integer array there."""
    idle: list[int]
    addresses: bytes
    """Of all outputs, as the native half takes them."""
    rows: int = 0
    """Rows that are not zero."""

    @classmethod
    def new(cls, specs: tuple[TensorSpec, ...]) -> Outputs:
        dtypes = [getattr(torch, name) for _, name in specs]
        starts, end = [], 0
        for (shape, _), dtype in zip(specs, dtypes, strict=True):
            starts.append(end)
            end += -(-int(np.prod(shape)) * dtype.itemsize // 64) * 64
        memory = mmap.mmap(-1, max(end, 1), flags=_MAP)
        if end >= _HUGE_PAGES_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        arrays, views = [], []
        for (shape, _), dtype, start in zip(specs, dtypes, starts, strict=True):
            plain = torch.int16 if dtype == torch.bfloat16 else dtype
            numpy_dtype = torch.empty(0, dtype=plain).numpy().dtype
            arrays.append(np.ndarray(shape, numpy_dtype, memory, start))
            views.append(None if plain is dtype else dtype)
        kept = tuple(arrays)
        del arrays  # `idle` counts the references of `found` alone
        addresses = [array.ctypes.data if array.size else 0 for array in kept]
        found = cls(kept, tuple(views), [], Struct(f"{len(kept)}q").pack(*addresses))
        found.idle = found.references()
        return found

    def references(self) -> list[int]:
        return list(map(sys.getrefcount, self.arrays))

    def tensors(self) -> list[Tensor]:
        """Each with a storage of its own, which keeps its array."""
        return [
            torch.from_numpy(array) if view is None else torch.from_numpy(array).view(view)
            for array, view in zip(self.arrays, self.views, strict=True)
        ]


_kept: OrderedDict[tuple[tuple[TensorSpec, ...], object], list[Outputs]] = OrderedDict()
_lock = threading.Lock()


def take(
    specs: tuple[TensorSpec, ...], *, filled_in_full: object = None
) -> tuple[list[Tensor], Outputs]:
    """Tensors of these shapes that nobody else can see, and the memory behind them.

    Only the first `Outputs.rows` rows hold anything; the caller writes how many it leaves.

    filled_in_full: identifies what else every call of this kind writes, always as much of it
    """
    kind = specs, filled_in_full
    with _lock:
        sets = _kept.get(kind)
        if sets is None:
            sets = _kept[kind] = []
            if len(_kept) > KINDS_KEPT:
                _kept.popitem(last=False)
        else:
            _kept.move_to_end(kind)
        for found in sets:
            if found.references() == found.idle:
                return found.tensors(), found
        found = Outputs.new(specs)
        if len(sets) < SETS_PER_KIND:
            sets.append(found)
        return found.tensors(), found


def forget() -> None:
    """Gives all kept memory back."""
    with _lock:
        _kept.clear()
