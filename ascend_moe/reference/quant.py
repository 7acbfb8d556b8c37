"""The arithmetic that must match the kernels bit for bit: int8 rows of dispatch and of combine, sums of servers.

Where nothing else is said all steps are fp32 with one rounding each, as the kernels do them; ``torch.round`` rounds
half to even like the vector unit. Where the vector unit turns NaN into 0 (an all-zero row gives 0 * inf), so does the
code below.
"""

from __future__ import annotations

import torch
from torch import Tensor

INT8_MAX = 127.0
COMM_QUANT_BLOCK = 8
"""Consecutive elements that share one scale in ``comm_quant_mode`` 2."""
COMM_QUANT_BLOCK_FP16 = 16
"""The same for fp16 rows in hierarchy."""


def divide(numerator: float, denominator: Tensor) -> Tensor:
    """``numerator / denominator`` in one fp32 rounding.

    ``127.0 / tensor`` will not do: torch evaluates it as a reciprocal times 127, two roundings.
    """
    return torch.full_like(denominator, numerator) / denominator


def rows_carry_scales(x: Tensor, quant_mode: int) -> bool:
    """Whether ``dynamic_scales`` means anything: one scale per row.

    int8 rows carry the scale of their quantisation. Rows of packed int4 (int32 ``x``, eight to a word, A2) travel as
    they are and carry the scale that came with their token.
    """
    return quant_mode != 0 or x.dtype == torch.int32


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
    """``comm_quant_mode`` 2 on full mesh: what combine receives after a row went over the link as int8.

    rows: (n, H) bf16 or fp16. Each block of 8 elements is divided by ``max * (1/127)`` in fp32, rounded to fp16 and
    then to int8; the receiver multiplies by the scale as stored in the rows' dtype and rounds to that dtype.
    """
    sent, scale = _quantise_blocks(rows.float(), COMM_QUANT_BLOCK)
    return _joined(sent * scale.to(rows.dtype).float(), rows.shape[1]).to(rows.dtype)


def fused_multiply_add(factor: Tensor, other: Tensor, addend: Tensor) -> Tensor:
    """``factor * other + addend`` with one rounding, in the dtype of ``addend``: fp32 or fp16.

    torch has no such operation. In the next wider format the product is exact and the sum is rounded to odd (its
    last bit remembers whether anything was cut off), so that the final rounding cannot be led astray by the first.
    """
    wide, bits = _WIDER[addend.dtype]
    product, addend_wide = factor.to(wide) * other.to(wide), addend.to(wide)
    total = product + addend_wide
    virtual = total - product  # Knuth's two-sum: `lost` is exactly what `total` lacks
    lost = (product - (total - virtual)) + (addend_wide - virtual)
    pattern = total.view(bits)
    toward = torch.where((lost > 0) == (total > 0), 1, -1).to(bits)
    cut_off = (lost != 0) & total.isfinite() & (pattern & 1 == 0)
    return torch.where(cut_off, pattern + toward, pattern).view(wide).to(addend.dtype)


_WIDER = {
    torch.float32: (torch.float64, torch.int64),
    torch.float16: (torch.float32, torch.int32),
}


def empty_server_total(
    tokens: int, hidden: int, dtype: torch.dtype, comm_quant_mode: int
) -> Tensor:
    """Zeros to which `add_server_sum` adds: fp32, but fp16 for int8 sums of fp16 rows."""
    in_fp16 = comm_quant_mode != 0 and dtype == torch.float16
    return torch.zeros(tokens, hidden, dtype=torch.float16 if in_fp16 else torch.float32)


def add_server_sum(
    total: Tensor, partial: Tensor, dtype: torch.dtype, comm_quant_mode: int
) -> Tensor:
    """Hierarchy: a server's sums cross the link and are added to those of the servers before it.

    total:   (n, H) as of `empty_server_total`
    partial: (n, H) fp32, what the server added up
    dtype:   of ``expand_x``: bf16 or fp16, what travels without quantisation

    ``comm_quant_mode`` 2 sends int8 with one scale per block of 8 (bf16, computed from the fp32 sum in fp32) or of 16
    (fp16, where the sum is rounded to fp16 first and everything after it, the adding included, is fp16).
    """
    if not comm_quant_mode:
        return total + partial.to(dtype).float()
    if dtype == torch.float16:
        sent, scale = _quantise_blocks(partial.half(), COMM_QUANT_BLOCK_FP16)
    else:
        sent, scale = _quantise_blocks(partial, COMM_QUANT_BLOCK)
    stored = scale.to(dtype).to(total.dtype).expand_as(sent)
    hidden = total.shape[1]
    return fused_multiply_add(_joined(sent, hidden), _joined(stored, hidden), total)


def _quantise_blocks(values: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Integers (n, blocks, block) and scales (n, blocks, 1) of (n, H) values, both in the dtype of ``values``.

    Every step is rounded to that dtype, and the quotient also to fp16, on its way to int8.
    """
    count, hidden = values.shape
    padding = -hidden % block
    padded = torch.nn.functional.pad(values, (0, padding))
    blocks = padded.view(count, (hidden + padding) // block, block)
    scale = blocks.abs().amax(dim=2, keepdim=True) * torch.tensor(
        1.0 / INT8_MAX, dtype=values.dtype
    )
    sent = (blocks / scale).half().float().round().nan_to_num(0.0).clamp(-INT8_MAX - 1, INT8_MAX)
    return sent.to(values.dtype), scale


def _joined(blocks: Tensor, hidden: int) -> Tensor:
    """(n, H) from (n, blocks, block), without the padding."""
    return blocks.flatten(1)[:, :hidden]
