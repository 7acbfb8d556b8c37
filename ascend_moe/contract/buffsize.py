"""How large HCCL_BUFFSIZE has to be, in plain integers: bytes until the last line.

Every EP group owns an HCCL buffer of HCCL_BUFFSIZE megabytes (allocated twice), which the two
operators use as windows that peers write into. On A3 full mesh it holds two halves, used in turn,
and each half

    dispatch area   local_experts * max_bs * ep slots, one per token that may arrive
    combine area    max_bs * (K + SN) slots, one per contribution that comes back

SN is the effective number of shared experts: the default (shared_expert_num=1,
shared_expert_rank_num=0) counts 0, as the operators compute it; a literal reading of the documents
counts 1, which `BuffSize.literal_mb` shows. Slots are sized for two-byte elements also when int8 is
sent. The check fails if and only if required > available: an exact fit is enough.

Sources: the documents of op-plugin d1c6186d and 517f2e7d; op_tiling of ops-transformer. They
write the header of a token as +64 and as +44 bytes, which is the same slot for every H.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ascend_moe.contract.limits import (
    FULLMESH_V2,
    HIERARCHY,
    RANKS_PER_SERVER,
    WINDOW_MB_MIN,
    path_limits,
)
from ascend_moe.contract.signature import CANN_8_2

MB = 2**20
CONTROL = 256 * 2**10
"""The first bytes of a window of our kernels."""


class Traffic(NamedTuple):
    """The sizes that a formula reads. max_bs is the largest batch of any rank."""

    max_bs: int
    hidden: int
    topk: int
    ep: int
    moe_experts: int
    local_experts: int
    shared_experts: int = 0
    packed: bool = False  # int32 x, eight int4 in a word


class Sum(NamedTuple):
    """A requirement in bytes and how it came about, as text only when somebody asks."""

    bytes: int
    template: str
    numbers: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.template.format(*self.numbers)} = {self.bytes} bytes"


@dataclass(frozen=True)
class BuffSize:
    """What one operator, or both, need of the EP group's HCCL buffer.

    Attributes:
        bytes: exact requirement.
        mb: smallest sufficient HCCL_BUFFSIZE.
        algorithm: fullmesh, fullmesh_v2 or hierarchy.
        formula: the formula with the numbers filled in.
        literal_mb: what a literal reading of the documents asks for, where that differs from mb.
    """

    bytes: int
    mb: int
    algorithm: str
    formula: str
    literal_mb: int | None = None

    @property
    def stock_log_mb(self) -> int:
        """What the stock error message prints: one more than mb when the size is exact."""
        return self.bytes // MB + 1

    @property
    def memory_mb(self) -> int:
        """Device memory of one group whose HCCL_BUFFSIZE is mb: HCCL allocates two buffers."""
        return 2 * self.mb


def _align(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def mesh_a3(t: Traffic) -> Sum:
    """A3 full mesh, and combine after a fullmesh_v2 dispatch."""
    return _mesh_a3(t, _align(_align(2 * t.hidden, 32) + 64, 512))


def mesh_v2_a3(t: Traffic) -> Sum:
    """A3 fullmesh_v2 dispatch: every block of 512 bytes carries 480 of payload."""
    return _mesh_a3(t, -(-(_align(2 * t.hidden, 32) + 64) // 480) * 512)


def _mesh_a3(t: Traffic, arriving: int) -> Sum:
    returning = _align(2 * t.hidden, 512)
    slots = t.local_experts * t.max_bs * t.ep
    back = (t.topk + t.shared_experts) * t.max_bs
    return Sum(
        2 * (slots * arriving + back * returning),
        "2 * ({} * {} * {} * {} + ({} + {}) * {} * {})",
        (t.local_experts, t.max_bs, t.ep, arriving, t.topk, t.shared_experts, t.max_bs, returning),
    )


def hierarchy_a3(t: Traffic) -> Sum:
    """As tiling computes it; the torch document's formula is smaller than what tiling demands."""
    words = 3 * (t.topk + 7) // 8 * 8
    return Sum(
        t.moe_experts * t.max_bs * (2 * t.hidden + words * 4 + 64) + 404 * MB,
        "{} * {} * (2 * {} + {} * 4 + 64) + 404 * 2^20",
        (t.moe_experts, t.max_bs, t.hidden, words),
    )


def mesh_a2(t: Traffic) -> Sum:
    """A2 full mesh; the 2 MB stand inside the doubled bracket."""
    arriving = min(t.local_experts, t.topk)
    token = 4 * t.hidden + 32 if t.packed else 2 * t.hidden
    return Sum(
        2 * (t.max_bs * t.ep * arriving * token + 2 * MB),
        "2 * ({} * {} * {} * {} + 2 * 2^20)",
        (t.max_bs, t.ep, arriving, token),
    )


def hierarchy_a2_first(t: Traffic) -> Sum:
    """A2 hierarchy under cann-8.2."""
    words = 4 * _align(t.topk, 8)
    return Sum(
        t.moe_experts * t.max_bs * (2 * t.hidden + words * 4) + 104 * MB,
        "{} * {} * (2 * {} + {} * 4) + 104 * 2^20",
        (t.moe_experts, t.max_bs, t.hidden, words),
    )


def hierarchy_a2(t: Traffic) -> Sum:
    """A2 hierarchy under cann-9.1."""
    slot = _align(t.max_bs * (2 * t.hidden + 16 * _align(t.topk, 8)), 512)
    return Sum(
        (t.moe_experts + t.ep // 4) * slot + 8 * MB,
        "({} + {} / 4) * {} + 8 * 2^20",
        (t.moe_experts, t.ep, slot),
    )


def tp_window(rows: int, hidden: int) -> Sum:
    """The buffer of the TP group with tp_world_size = 2 (cann-8.2); rows is A."""
    arriving = _align(_align(2 * hidden, 32) + 44, 512)
    returning = _align(2 * hidden, 512)
    return Sum(
        2 * rows * (arriving + returning),
        "2 * ({} * {} + {} * {})",
        (rows, arriving, rows, returning),
    )


def own_mesh(t: Traffic, op: str) -> Sum:
    """Our own kernels on full mesh (A3, and one A2 server), see kernels/device/abi.h and docs/kernels.md.

    Dispatch is pulled from the source's window, so nothing grows with the experts. The window serves
    every quant_mode: staging is largest for smooth scales, where each pair has a row of its own.
    """
    pairs = t.max_bs * (t.topk + t.shared_experts)
    listed = _align(t.max_bs * min(t.local_experts, t.topk), 8)
    lists = t.ep * _align(8 * listed, 512)
    # With smooth scales each pair has a scale of its own, where zero experts count as slots.
    with_scales = max(lists, _align(4 * (t.ep * listed + pairs), 512))
    dispatch = max(
        t.max_bs * _align(2 * t.hidden, 512) + lists, pairs * _align(t.hidden, 512) + with_scales
    )
    half_rows = -(-pairs * _align(2 * t.hidden, 512) // 2)
    parts = {"dispatch": dispatch, "combine": half_rows, "both": max(dispatch, half_rows)}
    area = _align(parts[op], 512)
    return Sum(CONTROL + 4 * area, "256 * 2^10 + 4 * {}", (area,))


def own_mesh_servers(t: Traffic, op: str) -> Sum:
    """Our own kernels on A2 full mesh over several servers, see kernels/device/mesh/abi.h and docs/kernels-mesh.md.

    Rows come by network card, so there is room for all that may arrive. The window serves every quant_mode.
    """
    listed = _align(t.max_bs * min(t.local_experts, t.topk), 8)
    lists = t.ep * _align(8 * listed, 512)
    far = t.ep - RANKS_PER_SERVER
    row = 4 * t.hidden if t.packed else 2 * t.hidden
    plain = t.max_bs * _align(row, 512) + far * _align(listed * row, 512)
    smooth = t.max_bs * t.topk * _align(t.hidden, 512) + far * _align(listed * t.hidden, 512)
    dispatch = (plain if t.packed else max(plain, smooth)) + lists
    combine = t.ep * _align(listed * 2 * t.hidden, 512)
    parts = {"dispatch": dispatch, "combine": combine, "both": max(dispatch, combine)}
    half = _align(parts[op], 512)
    return Sum(CONTROL + 2 * half, "256 * 2^10 + 2 * {}", (half,))


def own_hierarchy(t: Traffic, op: str, per_server: int) -> Sum:
    """Our own kernels on hierarchy, see kernels/device/hierarchy/abi.h and docs/kernels-hierarchy.md.

    The window serves every quant_mode and comm_quant_mode.
    """
    servers = -(-t.ep // per_server)
    experts = per_server * t.local_experts
    head = 8 + _align(experts, 8) + _align(t.max_bs, 8)

    def half(row: int, words: int) -> int:
        index = _align(4 * _align(head + t.max_bs * min(t.topk, experts) * words, 8), 512)
        listed = _align(4 * words * t.max_bs * min(t.local_experts, t.topk), 512)
        rows = (2 * servers - 1) * _align(t.max_bs * row, 512)
        return rows + servers * index + t.ep * listed

    dispatch = max(half(2 * t.hidden, 2), half(t.hidden, 3))
    slots = servers * t.max_bs * t.topk * _align(2 * t.hidden + 32, 512)
    combine = slots + servers * (512 + _align(t.max_bs * 2 * t.hidden, 512))
    third = -(-combine // 3)
    parts = {"dispatch": dispatch, "combine": third, "both": max(dispatch, third)}
    area = _align(parts[op], 512)
    return Sum(CONTROL + 5 * area, "256 * 2^10 + 5 * {}", (area,))


STOCK, OWN = IMPLEMENTATIONS = ("stock", "ascend_moe")
CPU = "cpu"
"""The CPU executor and the reference; they have no window, and are judged by that of "stock"."""


class Window(NamedTuple):
    """Which window is asked about: it decides the formula."""

    product: str
    contract: str
    path: str
    op: str  # "dispatch", "combine", or "both": the larger one, for stock dispatch's
    implementation: str = STOCK

    @property
    def formula(self) -> Callable[[Traffic], Sum]:
        """The formula of this product, contract, path, operator and implementation."""
        if self.implementation == OWN:
            return self._own
        if self.product == "A3":
            if self.path == HIERARCHY:
                return hierarchy_a3
            return mesh_v2_a3 if self.path == FULLMESH_V2 and self.op != "combine" else mesh_a3
        if self.path != HIERARCHY:
            return mesh_a2
        return hierarchy_a2_first if self.contract == CANN_8_2 else hierarchy_a2

    def _own(self, traffic: Traffic) -> Sum:
        if self.path == HIERARCHY:
            limits = path_limits(self.contract, self.product, self.path)
            return own_hierarchy(traffic, self.op, limits.ranks_per_server)
        if self.product == "A2" and traffic.ep > RANKS_PER_SERVER:
            return own_mesh_servers(traffic, self.op)
        return own_mesh(traffic, self.op)

    def megabytes(self, size: int) -> int:
        """The smallest sufficient HCCL_BUFFSIZE for so many bytes; A3 documents a minimum."""
        return max(-(-size // MB), WINDOW_MB_MIN if self.product == "A3" else 1)

    def required(self, traffic: Traffic) -> BuffSize:
        """What the traffic needs."""
        needed = self.formula(traffic)
        return BuffSize(needed.bytes, self.megabytes(needed.bytes), self.path, str(needed))

    def largest_max_bs(self, traffic: Traffic, available_mb: int) -> int:
        """The largest max_bs that fits and that the contract allows; 0 if none does."""
        formula = self.formula
        low, high = 0, path_limits(self.contract, self.product, self.path).batch_max
        while low < high:
            middle = (low + high + 1) // 2
            if formula(traffic._replace(max_bs=middle)).bytes <= available_mb * MB:
                low = middle
            else:
                high = middle - 1
        return low
