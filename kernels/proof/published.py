"""Published timings of the same two operations on Atlas A3, of other people's kernels, to stand beside the model's."""

from __future__ import annotations

from dataclasses import dataclass

from .timing import Shape


@dataclass(frozen=True)
class Published:
    """Microseconds of a whole call, or of what its authors call the operator."""

    who: str
    us: float
    note: str = ""


SGL = "deep_ep (sgl-kernel-npu)"
_LOW_LATENCY = {
    ("dispatch_int8", 8): 132,
    ("dispatch_int8", 16): 139,
    ("dispatch_int8", 32): 153,
    ("combine", 8): 126,
    ("combine", 16): 135,
    ("combine", 32): 151,
}
"""BS 128, H 7168, K 8: README of sgl-project/sgl-kernel-npu at f425bdf1 (2026-08-21)."""

_MEAN = {
    "dispatch_bf16": (("stock", 124.7), ("ZeroBufferEP", 104.5)),
    "dispatch_int8": (("stock", 101.1), ("ZeroBufferEP", 71.5)),
    "combine": (("stock", 89.8), ("ZeroBufferEP", 70.2)),
}
"""Decode, H 7168, mean over BS 16 to 144: arXiv 2605.06055 (2026-05), table 2. The nearest of our shapes is BS 64."""

_RATES = {"dispatch": (("HCCL", 50), ("stock zero-copy", 61), ("StrataCL", 82)),
          "combine": (("HCCL", 55), ("stock zero-copy", 68), ("StrataCL", 79))}  # fmt: skip
"""GB/s per rank at EP 32, 4096 tokens, low latency: arXiv 2607.26444 (2026-07)."""


def published(shape: Shape) -> list[Published]:
    """What others report for this shape, or for the nearest one they report."""
    found = []
    if shape.batch == 128 and (shape.operator, shape.ep) in _LOW_LATENCY:
        found.append(Published(SGL, _LOW_LATENCY[shape.operator, shape.ep]))
    if shape.batch == 64:
        found += [Published(who, us, "mean of BS 16 to 144") for who, us in _MEAN[shape.operator]]
    if shape.batch == 128 and shape.ep == 32 and shape.operator != "dispatch_int8":
        payload = shape.batch * 8 * shape.row_bytes
        found += [
            Published(who, round(payload / rate / 1000), f"{rate} GB/s at 4096 tokens")
            for who, rate in _RATES[shape.operator.partition("_")[0]]
        ]
    return found
