"""How large the HCCL buffer has to be for operators that do dispatch, experts and combine in one kernel.

They are not this project's operators; their buffers are asked for by the same variable. The sums are those of
public sources, one version each, which the answer names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ascend_moe.contract.buffsize import MB, BuffSize, Sum, Traffic
from ascend_moe.contract.resolve import Resolved, resolve_product

DISPATCH_FFN_COMBINE, MEGA_MOE = FUSED_OPS = ("dispatch_ffn_combine", "mega_moe")
_EXPERTS_PER_RANK = 128  # what mega_moe reserves flags and counts for, whatever there is
_RESERVED = 10 * MB


@dataclass(frozen=True)
class Fused:
    """One fused operator: where its sum stands, and what it takes.

    Attributes:
        source: repository, commit, file and line.
        batch_max: tokens per rank.
        hidden: (least, most, multiple of), or None where the source checks nothing.
        ep: allowed sizes, or None.
        note: what a reader should know about the sum.
    """

    source: str
    batch_max: int
    hidden: tuple[int, int, int] | None = None
    ep: tuple[int, ...] | None = None
    note: str = ""


FUSED: dict[str, Fused] = {
    DISPATCH_FFN_COMBINE: Fused(
        source="vllm-ascend 182b75ea84 (2026-08-22), csrc/mc2/dispatch_ffn_combine/op_host/"
        "dispatch_ffn_combine_tiling.cpp:285",
        batch_max=512,
        note="its own message writes 3MB where the source adds 10 MB",
    ),
    MEGA_MOE: Fused(
        source="ops-transformer 3a280bcc3 (2026-07-21), mc2/mega_moe/op_host/op_tiling/arch22/"
        "mega_moe_tiling_arch22.cpp:110",
        batch_max=4096,
        hidden=(1024, 8192, 512),
        ep=(2, 4, 8, 16, 32, 64, 128),
        note="rows of bfloat16, the larger case; max_recv_token_num at its default",
    ),
}


def fused_buffsize(op: str, product: str, traffic: Traffic) -> BuffSize:
    """What one fused operator needs.

    Raises ValueError with one sentence where the operator does not take these sizes.
    """
    limits = FUSED[op]
    if traffic.max_bs > limits.batch_max:
        raise ValueError(f"{op} takes max-bs up to {limits.batch_max}, not {traffic.max_bs}")
    if limits.hidden is not None:
        low, high, step = limits.hidden
        if not low <= traffic.hidden <= high or traffic.hidden % step:
            raise ValueError(
                f"{op} takes hidden sizes {low}..{high} in steps of {step}, not {traffic.hidden}"
            )
    if limits.ep is not None and traffic.ep not in limits.ep:
        raise ValueError(f"{op} takes EP sizes {', '.join(map(str, limits.ep))}, not {traffic.ep}")
    if op == DISPATCH_FFN_COMBINE:
        needed = _dispatch_ffn_combine(traffic)
    else:
        needed = _mega_moe(traffic, product)
    return BuffSize(needed.bytes, -(-needed.bytes // MB), op, str(needed))


def _dispatch_ffn_combine(t: Traffic) -> Sum:
    return Sum(
        t.max_bs * t.topk * t.hidden * 3 + 10 * MB,
        "{} * {} * {} * 3 + 10 * 2^20",
        (t.max_bs, t.topk, t.hidden),
    )


def _mega_moe(t: Traffic, product: str) -> Sum:
    counts = t.ep * -(-(t.ep * _EXPERTS_PER_RANK + 1) // 128) * 128 * 4
    pairs, row = t.max_bs * t.topk, 2 * t.hidden
    flags = t.ep * 512
    if product == "A3":
        rows = 2 * pairs * row
    else:
        received = t.max_bs * t.ep * min(t.topk, t.local_experts)
        rows = (received + pairs) * row
        flags += t.ep * (_EXPERTS_PER_RANK + 1) * 64
    return Sum(
        counts + rows + flags + _RESERVED,
        "{} (counts) + {} (rows) + {} (flags) + 10 * 2^20",
        (counts, rows, flags),
    )


@dataclass(frozen=True)
class FusedDeployment:
    """Sizes of one EP group for a fused operator."""

    op: str
    product: Resolved
    traffic: Traffic

    @property
    def required(self) -> BuffSize:
        """What it needs."""
        return fused_buffsize(self.op, self.product.name, self.traffic)

    def largest_max_bs(self, available_mb: int) -> int:
        """The largest max_bs that fits and that the operator takes; 0 if none does."""
        low, high = 0, FUSED[self.op].batch_max
        while low < high:
            middle = (low + high + 1) // 2
            needed = fused_buffsize(
                self.op, self.product.name, self.traffic._replace(max_bs=middle)
            )
            low, high = (middle, high) if needed.bytes <= available_mb * MB else (low, middle - 1)
        return low


def fused_deployment(
    op: str, product: str | None, sizes: Mapping[str, int | None], env: Mapping[str, str]
) -> FusedDeployment:
    """From the sizes that the operator's sum needs; the others may be None.

    Raises ValueError where experts do not divide, or as fused_buffsize does.
    """
    ep, experts = sizes.get("ep") or 1, sizes.get("experts") or 1
    if sizes.get("ep") and sizes.get("experts") and experts % ep:
        raise ValueError(f"{experts} experts do not divide over {ep} EP ranks")
    traffic = Traffic(
        max_bs=sizes["max_bs"] or 0,
        hidden=sizes["hidden"] or 0,
        topk=sizes["topk"] or 0,
        ep=ep,
        moe_experts=experts,
        local_experts=max(experts // ep, 1),
    )
    deployment = FusedDeployment(op, resolve_product(product, env), traffic)
    assert deployment.required  # refuses sizes that the operator does not take
    return deployment
