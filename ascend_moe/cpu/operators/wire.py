"""A row on the wire: a few words that say where it belongs, then its bytes.

    | token | slot | local expert | scale (fp32) | weight (fp32) | H elements | padding to 4 bytes |

The first three are int32: the row's place at its source and its expert at the destination. The scale is the dynamic
scale of an int8 row, the weight its ``expert_scales``; fields that a call does not use travel as zero. Scales ride
with their rows because one message per pair of ranks is what costs time, not its bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_PLACE_BYTES = 12
_HEAD_BYTES = 20


class Rows(NamedTuple):
    """Views into one (n, pitch) uint8 buffer."""

    buffer: Tensor
    place: Tensor
    """int32 (n, 3): token, slot, local expert."""
    scales: Tensor
    """fp32 (n,)."""
    weights: Tensor
    """fp32 (n,)."""
    elements: Tensor
    """(n, H) in the dtype of the rows."""


def pack(
    elements: Tensor, place: Tensor, *, scales: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """The wire buffer of n rows; ``place`` is (n, 3)."""
    count, hidden = elements.shape
    pitch = _HEAD_BYTES + -(-hidden * elements.itemsize // 4) * 4
    rows = unpack(torch.zeros(count, pitch, dtype=torch.uint8), hidden, elements.dtype)
    rows.place.copy_(place)
    rows.elements.copy_(elements)
    if scales is not None:
        rows.scales.copy_(scales)
    if weights is not None:
        rows.weights.copy_(weights)
    return rows.buffer


def unpack(buffer: Tensor, hidden: int, dtype: torch.dtype) -> Rows:
    """The fields of a wire buffer, without a copy."""
    head = buffer[:, :_HEAD_BYTES]
    return Rows(
        buffer,
        head[:, :_PLACE_BYTES].view(torch.int32),
        head[:, 12:16].view(torch.float32).squeeze(1),
        head[:, 16:].view(torch.float32).squeeze(1),
        buffer[:, _HEAD_BYTES : _HEAD_BYTES + hidden * dtype.itemsize].view(dtype),
    )
