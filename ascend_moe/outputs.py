"""Fresh output tensors whose padding costs nothing.

The operators return buffers for the worst case (A rows), usually several times what is received. Memory from
``calloc`` reads as zero without being touched, so the padding is deterministic and no page of it is ever faulted in;
``torch.zeros`` would write all of it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ascend_moe.contract.shapes import TensorSpec


def zero_output(spec: TensorSpec) -> Tensor:
    """A CPU tensor of ``spec`` that reads as zero everywhere."""
    dtype: torch.dtype = getattr(torch, spec.dtype)
    memory = np.zeros(math.prod(spec.shape), dtype=f"i{dtype.itemsize}")
    return torch.from_numpy(memory).view(dtype).view(spec.shape)
