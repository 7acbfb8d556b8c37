"""The arithmetic that must match the kernels bit for bit: int8 rows of dispatch and of combine.

All steps are fp32 with one rounding each, as the kernels do them; ``torch.round`` rounds half to even like the vector
unit. Where the vector unit turns NaN into 0 (an all-zero row gives 0 * inf), so does the code below.
"""

from __future__ import annotations

import torch
from torch import Tensor

INT8_MAX = 127.0
COMM_QUANT_BLOCK = 8
"""Consecutive elements that share one scale in ``comm_quant_mode`` 2."""


def divide(numerator: float, denominator: Tensor) -> Tensor:
    """``numerator / denominator`` in one fp32 rounding.

    ``127.0 / tensor`` will not do: torch evaluates it as a reciprocal times 127, two roundings.
    """
    return torch.full_like(denominator, numerator) / denominator


def quantise_rows(rows: Tensor, smooth: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``quant_mode`` 2: per-row dynamic int8.

    rows:   (n, H) bf16 or fp16
    smooth: (n, H) fp32 factors, or None
    Returns int8 (n, H) and the fp32 scales (n,) that ``dynamic_scales`` holds: ``1 / (127 / max)``, two divisions.
    """
    values = rows.float() if smooth is None else rows.float() * smooth
    if not len(rows):
        return values.to(torch.int8), values.new_empty(0)
    factor = divide(INT8_MAX, values.abs().amax(dim=1))
    scaled = (values * factor[:, None]).round().nan_to_num(0.0, posinf=INT8_MAX, neginf=-INT8_MAX)
    return scaled.to(torch.int8), divide(1.0, factor)


def through_comm_quant(rows: Tensor) -> Tensor:
    """``comm_quant_mode`` 2: what combine receives after a row went over the link as int8.

    rows: (n, H) bf16 or fp16. Each block of 8 elements is divided by ``max * (1/127)`` in fp32, rounded to fp16 and
    then to int8; the receiver multiplies by the scale as stored in the rows' dtype and rounds to that dtype.
    """
    count, hidden = rows.shape
    padding = -hidden % COMM_QUANT_BLOCK
    padded = torch.nn.functional.pad(rows.float(), (0, padding))
    blocks = padded.view(count, -1, COMM_QUANT_BLOCK)
    scale = blocks.abs().amax(dim=2, keepdim=True) * torch.tensor(
        1.0 / INT8_MAX, dtype=torch.float32
    )
    sent = (blocks / scale).half().float().round().nan_to_num(0.0)
    received = sent * scale.to(rows.dtype).float()
    return received.view(count, hidden + padding)[:, :hidden].to(rows.dtype)
