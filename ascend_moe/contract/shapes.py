"""How large everything is: A, the experts of a rank, and every output's shape and dtype.

The rules below follow what op-plugin allocates and what its meta registration returns (op-plugin `517f2e7d`,
`MoeDistributeDispatchV2KernelOpApi.cpp`, `_meta_registrations.py`; the August-2025 wrapper `d1c6186d` agrees). They
are the same on Atlas A2 and A3 and in both contracts: a mode that a product or contract lacks (TP, shared experts)
is refused by the rules before any size matters.

Symbols as in the documents: BS, H, K are the sizes of ``x`` and ``expert_ids``; *A* is the number of rows that a rank
must be ready to receive. Every number may also be a ``torch.SymInt``; nothing here converts to ``int``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

ASSIST_WORDS_PER_ROW = 128
"""int32 words of ``assist_info_for_combine`` per row of A (the kernels use the first three)."""

RANKS_PER_SERVER_IN_COUNTS = 8
"""Divisor in the length of the long ``ep_recv_counts``: the wrapper uses it on A2 and A3 alike."""


_ATTRIBUTES = ("ep_world_size", "moe_expert_num", "shared_expert_num", "shared_expert_rank_num")


class TensorSpec(NamedTuple):
    """Shape and dtype name (``"bfloat16"``) of a tensor that need not exist."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class World:
    """Who is where in one EP group: which ranks hold which experts.

    Ranks ``0 .. shared_expert_rank_num - 1`` are *shared ranks* (expert_shard_type 0: shared experts first), the
    others hold ``local_expert_num`` MoE experts each, in ascending order.

    Sizes of an illegal world (more shared experts than their ranks, say) are wrong but computable: the rules and the
    meta kernel ask for them before or without refusing the call.

    ``shared_expert_num`` is the *effective* number: 0 when ``shared_expert_rank_num`` is 0, because the default
    ``(1, 0)`` means "no shared expert" in every implementation.
    """

    ep_world_size: int
    moe_expert_num: int
    shared_expert_num: int
    shared_expert_rank_num: int

    @classmethod
    def of(
        cls,
        *,
        ep_world_size: int,
        moe_expert_num: int,
        shared_expert_num: int,
        shared_expert_rank_num: int,
    ) -> World:
        """The world of these attributes; turns the default ``(1, 0)`` into no shared expert."""
        effective = shared_expert_num if shared_expert_rank_num > 0 else 0
        return cls(ep_world_size, moe_expert_num, effective, shared_expert_rank_num)

    @classmethod
    def of_call(cls, call: Mapping[str, Any]) -> World:
        """The same from all arguments of a call."""
        return cls.of(**{name: call[name] for name in _ATTRIBUTES})

    @property
    def moe_rank_num(self) -> int:
        """Ranks that hold MoE experts."""
        return self.ep_world_size - self.shared_expert_rank_num

    @property
    def local_expert_num(self) -> int:
        """MoE experts on each MoE rank (the documents' localMoeExpertNum)."""
        return self.moe_expert_num // max(self.moe_rank_num, 1)

    @property
    def replicas_per_shared_expert(self) -> int:
        """Ranks that hold a copy of the same shared expert."""
        return max(self.shared_expert_rank_num // max(self.shared_expert_num, 1), 1)

    def is_shared_rank(self, rank: int) -> bool:
        """Whether ``rank`` holds a shared expert instead of MoE experts."""
        return rank < self.shared_expert_rank_num

    def experts_on(self, rank: int) -> int:
        """Entries of ``expert_token_nums``: the MoE experts of the rank, 1 on a shared rank."""
        return 1 if self.is_shared_rank(rank) else self.local_expert_num

    @property
    def kinds_of_ranks(self) -> tuple[int, int]:
        """A rank with shared experts, if there is one, and one with MoE experts."""
        return 0, self.ep_world_size - 1

    def rows_received_at_most(self, rank: int, *, max_bs: int, topk: int) -> int:
        """A: the rows that ``rank`` must be ready to receive.

        A MoE rank: ``max_bs * ep * min(local_expert_num, K)``. A shared rank serves every replica-count-th source
        rank: ``max_bs * ceil(ep / replicas)``, as every implementation computes it (the August-2025 text lacks the
        factor ep and the ceiling).
        """
        if self.is_shared_rank(rank):
            return max_bs * -(-self.ep_world_size // self.replicas_per_shared_expert)
        return max_bs * self.ep_world_size * min(self.local_expert_num, topk)


def max_bs_of(bs: int, *, ep_world_size: int, global_bs: int) -> int:
    """The largest BS of any rank: ``global_bs / ep``, or this rank's own BS when ``global_bs`` is 0."""
    return global_bs // ep_world_size if global_bs else bs


class DispatchSpecs(NamedTuple):
    """Shape and dtype of the seven results of dispatch, in the order the operator returns them."""

    expand_x: TensorSpec
    dynamic_scales: TensorSpec
    assist_info_for_combine: TensorSpec
    expert_token_nums: TensorSpec
    ep_recv_counts: TensorSpec
    tp_recv_counts: TensorSpec
    expand_scales: TensorSpec


def dispatch_specs(
    world: World,
    *,
    rank: int,
    bs: int,
    hidden: int,
    topk: int,
    x_dtype: str,
    quant_mode: int,
    global_bs: int,
    tp_world_size: int,
    has_expert_scales: bool,
    elastic: bool,
) -> DispatchSpecs:
    """Shapes and dtypes of everything dispatch returns on ``rank``.

    ``tp_world_size`` 0 and 1 mean "no TP". Where the eager wrapper and the meta registration of torch_npu differ the
    meta registration decides: ``expand_scales`` is empty unless ``expert_scales`` is given. With ``expert_scales``
    and TP on fewer than 8 ranks both forget the peer's half of ``ep_recv_counts``; it is kept here.

    elastic: ``elastic_info`` is given, with which a rank may become one of the other kind: the larger sizes of both
    """
    ep = world.ep_world_size
    max_bs = max_bs_of(bs, ep_world_size=ep, global_bs=global_bs)
    kinds = world.kinds_of_ranks if elastic else (rank,)
    rows = max(world.rows_received_at_most(one, max_bs=max_bs, topk=topk) for one in kinds)
    experts = max(map(world.experts_on, kinds))
    tp_copies = 2 if tp_world_size == 2 else 1
    counts = ep * experts * tp_copies
    if has_expert_scales:
        global_rows = global_bs if global_bs else bs * ep
        tables = global_rows * 2 * topk * (ep // RANKS_PER_SERVER_IN_COUNTS)
        counts = max(counts, ep * experts + tables)
    return DispatchSpecs(
        expand_x=TensorSpec((rows * tp_copies, hidden), "int8" if quant_mode else x_dtype),
        dynamic_scales=TensorSpec((rows * tp_copies,), "float32"),
        assist_info_for_combine=TensorSpec((max(bs * topk, rows * ASSIST_WORDS_PER_ROW),), "int32"),
        expert_token_nums=TensorSpec((experts,), "int64"),
        ep_recv_counts=TensorSpec((counts,), "int32"),
        tp_recv_counts=TensorSpec((tp_world_size,), "int32"),
        expand_scales=TensorSpec((rows if has_expert_scales else 0,), "float32"),
    )


def dispatch_specs_of_call(call: Mapping[str, Any]) -> DispatchSpecs:
    """The same from all arguments of a call (defaults filled in, shapes already checked or those of meta tensors)."""
    x = call["x"]
    return dispatch_specs(
        World.of_call(call),
        rank=call["ep_rank_id"],
        bs=x.shape[0],
        hidden=x.shape[1],
        topk=call["expert_ids"].shape[1],
        x_dtype=str(x.dtype).removeprefix("torch."),
        quant_mode=call["quant_mode"],
        global_bs=call["global_bs"],
        tp_world_size=call["tp_world_size"],
        has_expert_scales=call["expert_scales"] is not None,
        elastic=call["elastic_info"] is not None,
    )


def specs_of_call(op: str, call: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    """Shapes and dtypes of what either operator returns, from all its arguments."""
    if op == "dispatch":
        return dispatch_specs_of_call(call)
    rows = call["expand_x"]
    dtype = str(rows.dtype).removeprefix("torch.")
    return (
        combine_spec(bs=call["expert_ids"].shape[0], hidden=rows.shape[1], expand_x_dtype=dtype),
    )


def combine_spec(*, bs: int, hidden: int, expand_x_dtype: str) -> TensorSpec:
    """Shape and dtype of combine's result: one row per token, in the dtype of ``expand_x``."""
    return TensorSpec((bs, hidden), expand_x_dtype)
