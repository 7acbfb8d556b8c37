"""Fresh tensors at the price of the pages that are used.

The first touch of a page costs several times what is then written to it. The operators return buffers for the worst
case (A rows), usually several times what is received: `zero_table` leaves their padding untouched. Large buffers that
are written in full come from `fresh`, in huge pages.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ascend_moe.contract.shapes import TensorSpec

_MAP_FROM_BYTES: Final = 1 << 20
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


def zero_table(specs: Sequence[TensorSpec]) -> ZeroTable:
    """CPU tensors of one dtype that read as zero everywhere, one per rank, and a table of them all.

    No two outputs overlap, and each has a storage of its own and of its own size: writing into one, or saving it,
    does nothing to the others. Only the memory of all lives as long as one of them.
    """
    dtype: torch.dtype = getattr(torch, specs[0].dtype)
    counts = {spec: math.prod(spec.shape) for spec in set(specs)}
    table = _zeros(len(specs), _rounded_up(max(counts.values()) * dtype.itemsize, 64))
    table = table.view(_INSTEAD.get(specs[0].dtype, specs[0].dtype))
    shaped = {
        spec: table[:, :count].reshape(len(specs), *spec.shape) for spec, count in counts.items()
    }
    outputs = [torch.from_numpy(shaped[spec][rank]) for rank, spec in enumerate(specs)]
    if specs[0].dtype in _INSTEAD:
        outputs = [output.view(dtype) for output in outputs]
    return ZeroTable(torch.from_numpy(table).view(dtype), outputs)


def _zeros(rows: int, row_bytes: int) -> NDArray[Any]:
    """Anonymous memory reads as zero without being touched; ``torch.zeros`` would write all of it."""
    size = rows * row_bytes
    if size < _MAP_FROM_BYTES:
        return np.zeros((rows, row_bytes), np.uint8)
    return np.frombuffer(mmap.mmap(-1, size, flags=_MAP), np.uint8).reshape(rows, row_bytes)


def fresh(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """``torch.empty`` on the CPU. numpy asks the kernel for huge pages when an array is large, torch does not."""
    memory = np.empty(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(memory).view(dtype).view(shape)


def _rounded_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit
