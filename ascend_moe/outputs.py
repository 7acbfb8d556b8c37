"""Fresh tensors at the price of the pages that are used.

The first touch of a page costs several times what is then written to it. The operators return buffers for the worst
case (A rows), usually several times what is received: `zero_output` leaves their padding untouched. Large buffers that
are written in full come from `fresh`, in huge pages.
"""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ascend_moe.contract.shapes import TensorSpec

_MAP_FROM_BYTES: Final = 1 << 20
"""Below this plain allocations are cheaper than a mapping."""

_MAP: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
"""No reservation: a large world's padding exceeds the machine. Python names the flag from 3.11 on."""

_POPULATE_WRITE: Final = 23
"""``MADV_POPULATE_WRITE`` of Linux, which Python does not name."""


def zero_output(spec: TensorSpec) -> Tensor:
    """A CPU tensor of ``spec`` that reads as zero everywhere, in memory of its own."""
    ((output,),) = zero_outputs([(spec,)])
    return output


def zero_outputs(
    specs_of_calls: Sequence[tuple[TensorSpec, ...]], *, written: Sequence[int] | None = None
) -> list[list[Tensor]]:
    """The outputs of every call: CPU tensors that read as zero everywhere, each with a storage of its own.

    Anonymous memory reads as zero without being touched, so the padding is deterministic and none of its pages is
    ever faulted in; ``torch.zeros`` would write all of it. All outputs share a mapping, whose pages live as long as
    one of them.

    written: bytes of each call's first output that the caller is about to write; their pages are then faulted in by
        one request and not one by one.
    """
    layouts = [_layout(specs) for specs in specs_of_calls]
    size = sum(layout.size for layout in layouts)
    if size < _MAP_FROM_BYTES:
        return [
            [torch.zeros(part.shape, dtype=part.dtype) for part in layout.parts]
            for layout in layouts
        ]
    memory = mmap.mmap(-1, size, flags=_MAP)
    outputs, start = [], 0
    for index, layout in enumerate(layouts):
        if written is not None:
            with contextlib.suppress(OSError):  # Linux before 5.14 does not know the advice
                memory.madvise(_POPULATE_WRITE, start, written[index])
        outputs.append([part.inside(memory, start) for part in layout.parts])
        start += layout.size
    return outputs


def fresh(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """``torch.empty`` on the CPU. numpy asks the kernel for huge pages when an array is large, torch does not."""
    memory = np.empty(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(memory).view(dtype).view(shape)


class _Part(NamedTuple):
    """One output in a call's share of a mapping."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    numel: int
    offset: int

    def inside(self, memory: mmap.mmap, start: int) -> Tensor:
        if not self.numel:
            return torch.empty(self.shape, dtype=self.dtype)
        flat = torch.frombuffer(
            memory, dtype=self.dtype, count=self.numel, offset=start + self.offset
        )
        return flat if len(self.shape) == 1 else flat.view(self.shape)


class _Layout(NamedTuple):
    """A call's share of a mapping: whole pages."""

    parts: list[_Part]
    size: int


@functools.lru_cache
def _layout(specs: tuple[TensorSpec, ...]) -> _Layout:
    """Outputs begin at cache lines; the first one at a page."""
    parts, end = [], 0
    for shape, name in specs:
        dtype, count = getattr(torch, name), math.prod(shape)
        parts.append(_Part(shape, dtype, count, end))
        end = _rounded_up(end + count * dtype.itemsize, 64)
    return _Layout(parts, _rounded_up(end, mmap.PAGESIZE))


def _rounded_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit
