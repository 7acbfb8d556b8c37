"""Outputs in memory that was used before: no page is touched for the first time in a steady state.

The operators return buffers for the worst case, and a fresh page costs several times what is then written to it. So a
process keeps the memory of its last calls and hands it out again, but only when nobody can see it any more: each output
is a numpy array that a tensor's storage refers to, and an array that only this module refers to has no tensor, view,
numpy or dlpack alias left. Nothing is ever reused by age; who keeps outputs gets new memory for the next ones.

Repeated calls do the same in ``windows/native/outputs.h``, where a storage tells when it ends.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from dataclasses import dataclass, field
from sys import getrefcount
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ascend_moe.contract.shapes import TensorSpec
from ascend_moe.outputs import mapping

KINDS_KEPT: Final = 16
"""Shapes of outputs for which memory is kept; the one that was not used for longest makes room."""
SETS_PER_KIND: Final = 4
_HUGE_PAGES_FROM: Final = 4 << 20


@dataclass
class Outputs:
    """The memory of one call's outputs."""

    arrays: tuple[NDArray[Any], ...]
    views: tuple[tuple[int, torch.dtype], ...]
    """What numpy has no name for is an integer array there: which output, and what it is."""
    idle: list[int]
    addresses: memoryview
    """int64, of all outputs."""
    rows: int = 0
    """Rows that are not zero."""

    @classmethod
    def new(cls, specs: tuple[TensorSpec, ...]) -> Outputs:
        dtypes = [getattr(torch, name) for _, name in specs]
        starts, end = [], 0
        for (shape, _), dtype in zip(specs, dtypes, strict=True):
            starts.append(end)
            end += -(-int(np.prod(shape)) * dtype.itemsize // 64) * 64
        memory = mapping(max(end, 1), huge_pages=end >= _HUGE_PAGES_FROM)
        arrays, views = [], []
        for (shape, _), dtype, start in zip(specs, dtypes, starts, strict=True):
            plain = torch.int16 if dtype == torch.bfloat16 else dtype
            numpy_dtype = torch.empty(0, dtype=plain).numpy().dtype
            arrays.append(np.ndarray(shape, numpy_dtype, memory, start))
            if plain is not dtype:
                views.append((len(arrays) - 1, dtype))
        kept = tuple(arrays)
        del arrays  # `idle` counts the references of `found` alone
        addresses = [array.ctypes.data if array.size else 0 for array in kept]
        found = cls(kept, tuple(views), [], memoryview(array("q", addresses)))
        found.idle = list(map(getrefcount, found.arrays))
        return found

    def tensors(self) -> list[Tensor]:
        """Each with a storage of its own, which keeps its array."""
        made = list(map(torch.from_numpy, self.arrays))
        for index, dtype in self.views:
            made[index] = made[index].view(dtype)
        return made


_Kind = tuple[tuple[TensorSpec, ...], object]


@dataclass
class Sets:
    """The memory that is kept for outputs of one kind."""

    kind: _Kind
    outputs: list[Outputs] = field(default_factory=list)


_kept: OrderedDict[_Kind, Sets] = OrderedDict()
_lock = threading.Lock()


def sets_of(specs: tuple[TensorSpec, ...], filled_in_full: object) -> Sets:
    """Where outputs of these shapes come from.

    filled_in_full: identifies what every call of this kind writes besides rows, always as much of it
    """
    with _lock:
        return _kept.setdefault((specs, filled_in_full), Sets((specs, filled_in_full)))


def take(sets: Sets) -> tuple[list[Tensor], Outputs]:
    """Tensors that nobody else can see, and the memory behind them.

    Only the first `Outputs.rows` rows hold anything; the caller writes how many it leaves.
    """
    with _lock:
        for found in sets.outputs:
            if list(map(getrefcount, found.arrays)) == found.idle:
                return found.tensors(), found
        found = Outputs.new(sets.kind[0])
        if len(sets.outputs) < SETS_PER_KIND:
            sets.outputs.append(found)
        _kept[sets.kind] = sets
        _kept.move_to_end(sets.kind)
        while len(_kept) > KINDS_KEPT:
            _, oldest = _kept.popitem(last=False)
            oldest.outputs.clear()
        return found.tensors(), found
