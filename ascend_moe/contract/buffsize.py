"""How large HCCL_BUFFSIZE has to be: the windows of both operators in plain integers, bytes until the last line.

Every EP group owns one HCCL buffer of HCCL_BUFFSIZE megabytes (twice, once for each direction). The two
operators use it as windows that peers write into. On A3 full mesh it holds two halves, used in turn:

    dispatch area   local_experts * max_bs * ep slots, one per token that may arrive
    combine area    max_bs * (K + SN) slots, one per contribution that comes back

SN is the effective number of shared experts: the default (shared_expert_num=1, shared_expert_rank_num=0)
counts 0, as the operators compute it; a literal reading of the documents counts 1 (BuffSize.literal_mb).
Slots are sized for two-byte elements also when int8 is sent. A check fails if and only if
required > available, so an exact fit is enough.

Sources: op-plugin d1c6186d and 517f2e7d documents; ops-transformer op_tiling of both operators.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ascend_moe.contract.limits import FULLMESH_V2, HIERARCHY, WINDOW_MB_MIN, path_limits
from ascend_moe.contract.signature import CANN_8_2

MB = 2**20


@dataclass(frozen=True)
class Traffic:
    """The sizes that a formula reads. max_bs is the largest batch of any rank."""

    max_bs: int
    hidden: int
    topk: int
    ep: int
    moe_experts: int
    local_experts: int
    shared_experts: int = 0
    packed: bool = False  # int32 x, eight int4 in a word


@dataclass(frozen=True)
class BuffSize:
    """What one call, or both, need of the EP group's HCCL buffer.

    bytes:        exact requirement
    mb:           smallest sufficient HCCL_BUFFSIZE
    algorithm:    fullmesh, fullmesh_v2 or hierarchy
    formula:      the formula with the numbers filled in
    stock_log_mb: what the stock error message would print (one more than mb on an exact fit)
    literal_mb:   what a literal reading of the documents asks for, where it differs from mb
    memory_mb:    device memory that one communicator of that size takes: HCCL allocates two buffers
    """

    bytes: int
    mb: int
    algorithm: str
    formula: str
    literal_mb: int | None = None

    @property
    def stock_log_mb(self) -> int:
        return self.bytes // MB + 1

    @property
    def memory_mb(self) -> int:
        return 2 * self.mb


def align(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def padded_480(size: int) -> int:
    """fullmesh_v2 carries 480 bytes of payload in every block of 512."""
    return -(-size // 480) * 512


def mesh_a3(t: Traffic) -> tuple[int, str]:
    return _mesh_a3(t, align(align(2 * t.hidden, 32) + 64, 512))


def mesh_v2_a3(t: Traffic) -> tuple[int, str]:
    return _mesh_a3(t, padded_480(align(2 * t.hidden, 32) + 64))


def _mesh_a3(t: Traffic, arriving: int) -> tuple[int, str]:
    returning = align(2 * t.hidden, 512)
    size = 2 * (
        t.local_experts * t.max_bs * t.ep * arriving
        + (t.topk + t.shared_experts) * t.max_bs * returning
    )
    return size, (
        f"2 * ({t.local_experts} * {t.max_bs} * {t.ep} * {arriving}"
        f" + ({t.topk} + {t.shared_experts}) * {t.max_bs} * {returning})"
    )


def hierarchy_a3(t: Traffic) -> tuple[int, str]:
    """As tiling computes it; the formula of the torch document is smaller than what tiling demands."""
    words = 3 * (t.topk + 7) // 8 * 8
    size = t.moe_experts * t.max_bs * (2 * t.hidden + words * 4 + 64) + 404 * MB
    return size, (
        f"{t.moe_experts} * {t.max_bs} * (2 * {t.hidden} + {words} * 4 + 64) + 404 * 2^20"
    )


def mesh_a2(t: Traffic) -> tuple[int, str]:
    arriving = min(t.local_experts, t.topk)
    token = 4 * t.hidden + 32 if t.packed else 2 * t.hidden
    size = 2 * (t.max_bs * t.ep * arriving * token + 2 * MB)
    return size, f"2 * ({t.max_bs} * {t.ep} * {arriving} * {token} + 2 * 2^20)"


def hierarchy_a2_seed(t: Traffic) -> tuple[int, str]:
    words = 4 * align(t.topk, 8)
    size = t.moe_experts * t.max_bs * (2 * t.hidden + words * 4) + 104 * MB
    return size, f"{t.moe_experts} * {t.max_bs} * (2 * {t.hidden} + {words} * 4) + 104 * 2^20"


def hierarchy_a2(t: Traffic) -> tuple[int, str]:
    slots = t.moe_experts + t.ep // 4
    slot = align(t.max_bs * (2 * t.hidden + 16 * align(t.topk, 8)), 512)
    return slots * slot + 8 * MB, f"({t.moe_experts} + {t.ep} / 4) * {slot} + 8 * 2^20"


def tp_window(rows: int, hidden: int) -> tuple[int, str]:
    """The window of the TP group, tp_world_size = 2 (cann-8.2); rows is A."""
    arriving = align(align(2 * hidden, 32) + 44, 512)
    returning = align(2 * hidden, 512)
    return 2 * rows * (arriving + returning), f"2 * ({rows} * {arriving} + {rows} * {returning})"


def window_formula(
    product: str, contract: str, path: str, op: str
) -> Callable[[Traffic], tuple[int, str]]:
    if product == "A3":
        if path == HIERARCHY:
            return hierarchy_a3
        return mesh_v2_a3 if path == FULLMESH_V2 and op != "combine" else mesh_a3
    if path != HIERARCHY:
        return mesh_a2
    return hierarchy_a2_seed if contract == CANN_8_2 else hierarchy_a2


def window(traffic: Traffic, *, product: str, contract: str, path: str, op: str) -> BuffSize:
    """The requirement of op "dispatch", "combine" or "both". fullmesh_v2 is dispatch's path:
    combine beside it uses the plain full-mesh window, which is never larger.
    """
    formula = window_formula(product, contract, path, op)
    size, text = formula(traffic)
    return BuffSize(size, megabytes(size, product), path, f"{text} = {size} bytes")


def megabytes(size: int, product: str) -> int:
    """The smallest sufficient HCCL_BUFFSIZE; A3 documents a minimum."""
    return max(-(-size // MB), WINDOW_MB_MIN if product == "A3" else 1)


def largest_max_bs(
    traffic: Traffic, available_mb: int, *, product: str, contract: str, path: str, op: str
) -> int:
    """The largest max_bs that fits available_mb and the contract; 0 if none does."""
    formula = window_formula(product, contract, path, op)
    low, high = 0, path_limits(contract, product, path).batch_max
    while low < high:
        middle = (low + high + 1) // 2
        trial = Traffic(**{**vars(traffic), "max_bs": middle})
        if formula(trial)[0] <= available_mb * MB:
            low = middle
        else:
            high = middle - 1
    return low


def required_hccl_buffsize(
    *,
    product: str,
    max_bs: int,
    hidden: int,
    topk: int,
    ep_world_size: int,
    moe_expert_num: int,
    shared_expert_num: int = 1,
    shared_expert_rank_num: int = 0,
    op: str = "both",
    comm_alg: str = "",
    contract: str | None = None,
    implementation: str = "stock",
    env: Mapping[str, str] | None = None,
) -> BuffSize:
    """The HCCL_BUFFSIZE that a deployment needs, computed before anything runs.

    product: "A2" or "A3". max_bs: largest number of tokens of any rank in one call. hidden: H in elements
    (bfloat16 or float16). op: "dispatch", "combine" or "both". comm_alg: as for the operators; on A2 an
    empty one lets HCCL_INTRA_PCIE_ENABLE and HCCL_INTRA_ROCE_ENABLE select hierarchy, as the operators do.
    contract: "cann-8.2", "cann-9.1", or None for the oldest that knows comm_alg.

    Raises ConstraintError where no size can be computed (a count that is not positive, experts that do
    not divide). Sizes beyond the contract's limits are computed; ascend_moe.check_dispatch refuses them.
    """
    from ascend_moe.contract.deployment import Deployment

    return Deployment.of(
        product=product,
        max_bs=max_bs,
        hidden=hidden,
        topk=topk,
        ep_world_size=ep_world_size,
        moe_expert_num=moe_expert_num,
        shared_expert_num=shared_expert_num,
        shared_expert_rank_num=shared_expert_rank_num,
        op=op,
        comm_alg=comm_alg,
        contract=contract,
        implementation=implementation,
        env=os.environ if env is None else env,
    ).required
