"""Tensors at the price of the pages that are used.

The first touch of a page costs several times what is then written to it. The operators return buffers for the worst
case (A rows), usually several times what is received: `zero_table` leaves their padding untouched. Large buffers that
are written in full come from `fresh`, in huge pages. And when the last tensor that sees a large mapping is gone, the
pages that were written stay for the next world of the same kind (`_mapped`).
"""

from __future__ import annotations

import functools
import itertools
import math
import mmap
import sys
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ascend_moe.contract.shapes import TensorSpec

_MAP_FROM_BYTES: Final = 4 << 20
"""Below this plain allocations are cheaper than a mapping."""

_MAP: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
"""No reservation: a large world's padding exceeds the machine. Python names the flag from 3.11 on."""

_INSTEAD: Final = {"bfloat16": "int16"}
"""What numpy has no name for, and what its bits are called there."""


class ZeroTable(NamedTuple):
    """The same output of all ranks."""

    table: Tensor
    """(ranks, elements of the largest output or more): through it all ranks are written at once."""
    outputs: list[Tensor]
    """What each rank returns: the first elements of its row, in the output's shape."""


def zero_output(spec: TensorSpec) -> Tensor:
    """A CPU tensor of ``spec`` that reads as zero everywhere, in memory of its own."""
    return zero_table([spec]).outputs[0]


def zero_table(specs: Sequence[TensorSpec], *, written: Sequence[int] | None = None) -> ZeroTable:
    """CPU tensors of one dtype that read as zero everywhere, one per rank, and a table of them all.

    No two outputs overlap, and each has a storage of its own and of its own size: writing into one, or saving it,
    does nothing to the others. Only the memory of all lives as long as one of them.

    written: how many elements at the front of each output the caller is going to write, all of them; until then they
        may hold anything
    """
    name = specs[0].dtype
    dtype: torch.dtype = getattr(torch, name)
    kinds = [(spec, len(list(alike))) for spec, alike in itertools.groupby(specs)]
    row_bytes = _rounded_up(
        max(math.prod(spec.shape) for spec, _ in kinds) * dtype.itemsize,
        64 if written is None else mmap.PAGESIZE,
    )
    if len(specs) * row_bytes < _MAP_FROM_BYTES:
        memory = np.zeros(len(specs) * row_bytes, np.uint8)
    else:
        fronts = [0] * len(specs) if written is None else [n * dtype.itemsize for n in written]
        memory = _mapped(row_bytes, fronts)
    table = memory.view(_INSTEAD.get(name, name)).reshape(len(specs), -1)
    outputs: list[Tensor] = []
    for spec, ranks in kinds:
        rows = table[len(outputs) :][:ranks, : math.prod(spec.shape)]
        outputs += map(torch.from_numpy, rows.reshape(ranks, *spec.shape))
    if name in _INSTEAD:
        outputs = [output.view(dtype) for output in outputs]
    return ZeroTable(torch.from_numpy(table).view(dtype), outputs)


def fresh(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """``torch.empty`` on the CPU, in huge pages if it is large."""
    size = math.prod(shape) * dtype.itemsize
    if size < _MAP_FROM_BYTES:
        return torch.empty(shape, dtype=dtype)
    memory = _mapped(_rounded_up(size, mmap.PAGESIZE), [size], huge_pages=True)
    return torch.from_numpy(memory[:size]).view(dtype).view(shape)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """``torch.cat`` into memory that is quick to touch; fp32 as soon as one part is."""
    dtype = functools.reduce(torch.promote_types, {part.dtype for part in parts})
    rows = sum(part.size(0) for part in parts)
    return torch.cat(list(parts), out=fresh((rows, parts[0].shape[1]), dtype))


def mapping(size: int, *, huge_pages: bool) -> mmap.mmap:
    """Private memory that reads as zero and takes no page before it is touched."""
    memory = mmap.mmap(-1, size, flags=_MAP)
    if huge_pages and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class _Idle(NamedTuple):
    """A mapping that no tensor refers to. It reads as zero beyond the pages of its fronts."""

    memory: mmap.mmap
    fronts: Sequence[int]


_idle: Final[OrderedDict[object, _Idle]] = OrderedDict()
_MOST_IDLE: Final = 4
_MOST_IDLE_BYTES: Final = 64 << 20
"""Of each mapping: more is not kept."""


def _mapped(row_bytes: int, fronts: Sequence[int], *, huge_pages: bool = False) -> NDArray[Any]:
    """Rows of memory that read as zero, except for the first ``fronts`` bytes of each, which may hold anything.

    row_bytes: whole pages, if there are fronts
    """
    kind = (len(fronts), row_bytes, huge_pages)
    starts = range(0, len(fronts) * row_bytes, row_bytes)
    memory, stale = _idle.pop(kind, (None, fronts))
    if memory is None:
        memory = mapping(len(fronts) * row_bytes, huge_pages=huge_pages)
        array = np.frombuffer(memory, np.uint8)
    else:
        array = np.frombuffer(memory, np.uint8)
        for start, front, old in zip(starts, fronts, stale, strict=True):
            array[start + front : start + _rounded_up(old, mmap.PAGESIZE)] = 0
    # Tensors refer to the array; elsewhere than on Linux pages given back need not become zero.
    if 0 < sum(fronts) <= _MOST_IDLE_BYTES and sys.platform == "linux":
        weakref.finalize(array, _keep, kind, _Idle(memory, fronts)).atexit = False
    return array


def _keep(kind: tuple[int, int, bool], mapping: _Idle) -> None:
    """Nobody sees the mapping any more: all but its fronts goes back to the system, whatever was written there."""
    _, row_bytes, _ = kind
    for row, front in enumerate(mapping.fronts):
        page = _rounded_up(front, mmap.PAGESIZE)
        if page < row_bytes:
            mapping.memory.madvise(mmap.MADV_DONTNEED, row * row_bytes + page, row_bytes - page)
    _idle[kind] = mapping
    if len(_idle) > _MOST_IDLE:
        _idle.popitem(last=False)


def _rounded_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit
