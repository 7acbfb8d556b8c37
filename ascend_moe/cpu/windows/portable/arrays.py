"""Rows and shared memory as numpy sees them: numpy knows no bf16, and moves one wide element faster than many."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def array(half: Tensor, offset: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """The array that begins ``offset`` bytes after the begin of an area's half."""
    size = math.prod(shape) * dtype.itemsize
    return half[offset : offset + size].view(dtype).view(shape)


def whole_rows(rows: Tensor) -> NDArray[np.void]:
    """(n,) from contiguous (n, H), without a copy: each row one element, moved by one memcpy."""
    width = rows.shape[1] * rows.itemsize
    found: NDArray[Any] = rows.view(torch.uint8).numpy().view(f"V{width}")[:, 0]
    return found


def pairs_as_words(pairs: NDArray[np.int32]) -> NDArray[np.int64]:
    """(...,) from (..., 2): both numbers of a pair in one word."""
    words: NDArray[np.int64] = pairs.view(np.int64)[..., 0]
    return words
