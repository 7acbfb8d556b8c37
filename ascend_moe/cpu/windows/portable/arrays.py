"""Rows and shared memory as numpy sees them: numpy knows no bf16, and moves one wide element faster than many."""

from __future__ import annotations

import ctypes
import math
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

copy: Final = ctypes.memmove
"""(to, from, bytes): addresses, or bytes to copy from. Costs a fraction of what an assignment of arrays does."""


def array(half: Tensor, offset: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """The array that begins ``offset`` bytes after the begin of an area's half."""
    size = math.prod(shape) * dtype.itemsize
    return half[offset : offset + size].view(dtype).view(shape)


def bytes_of(tensor: Tensor | None, count: int) -> bytes:
    """The first bytes of a contiguous tensor; of none there are none."""
    return b"" if tensor is None else ctypes.string_at(tensor.data_ptr(), count)


def whole_rows(rows: NDArray[Any]) -> NDArray[np.void]:
    """(n,) from contiguous (n, H), without a copy: each row one element, moved by one memcpy."""
    found: NDArray[np.void] = rows.view(f"V{rows.shape[1] * rows.itemsize}")[:, 0]
    return found


def whole_rows_of(tensor: Tensor, count: int) -> NDArray[np.void]:
    """The same of the first ``count`` rows of a contiguous tensor of 16-bit elements."""
    return whole_rows(tensor.view(torch.int16).numpy()[:count])
