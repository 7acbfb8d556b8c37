"""Fresh output tensors whose padding costs nothing.

The operators return buffers for the worst case (A rows), usually several times what is received. Anonymous memory
reads as zero without being touched, so the padding is deterministic and none of its pages is ever faulted in;
``torch.zeros`` would write all of it, at many times the cost of the rows themselves.
"""

from __future__ import annotations

import math
import mmap
from typing import Final

import torch
from torch import Tensor

from ascend_moe.contract.shapes import TensorSpec

_MAP_FROM_BYTES: Final = 1 << 20
"""Below this a plain allocation is cheaper than a mapping."""


def zero_output(spec: TensorSpec) -> Tensor:
    """A CPU tensor of ``spec`` that reads as zero everywhere."""
    dtype: torch.dtype = getattr(torch, spec.dtype)
    size = math.prod(spec.shape) * dtype.itemsize
    if size < _MAP_FROM_BYTES:
        return torch.zeros(spec.shape, dtype=dtype)
    return torch.frombuffer(mmap.mmap(-1, size), dtype=dtype).view(spec.shape)
