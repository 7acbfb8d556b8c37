"""One call, normalised: every keyword present, tensors by shape and dtype name, derived sizes as integers.

Symbols of the documents and their names here:

    BS   batch               rows of x (dispatch) or of expert_ids (combine)
    H    hidden              columns of x or expand_x
    K    topk                columns of expert_ids
    SN   shared_experts      effective: the default (shared_expert_num=1, shared_expert_rank_num=0) means 0
    SR   shared_ranks        0 on A2, which has no shared experts
    A    rows                rows that expand_x must hold, max_batch * ep * min(local_experts, topk) on a MoE rank

A derived size is None when the call is too broken to derive it; the rule that broke reports, and rules
that need the size stay silent. So one mistake is one violation.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from ascend_moe.contract.limits import LIMITS, Limits, PathLimits, path_limits
from ascend_moe.contract.path import select_path
from ascend_moe.contract.shapes import World
from ascend_moe.contract.signature import PARAMETERS, Parameter


class TensorLike(Protocol):
    """What shape and dtype rules read: torch tensors on any device, meta tensors, DescribedTensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> object: ...


@dataclass(frozen=True)
class DescribedTensor:
    """A tensor as a description: what `ascend-moe check` reads and the examples of the rules use."""

    shape: tuple[int, ...]
    dtype: str
    contiguous: bool = True
    requires_grad: bool = False
    values: object = None  # nested tuples, for rules that read contents

    def is_contiguous(self) -> bool:
        return self.contiguous

    def dim(self) -> int:
        return len(self.shape)


_DTYPE_NAMES: dict[object, str] = {}


def dtype_name(tensor: TensorLike) -> str:
    """ "bfloat16" for torch.bfloat16, without importing torch."""
    dtype = tensor.dtype
    name = _DTYPE_NAMES.get(dtype)
    if name is None:
        name = _DTYPE_NAMES[dtype] = str(dtype).removeprefix("torch.")
    return name


class Call:
    """A call of one operator on one product under one contract. Attributes are never reassigned."""

    op: str
    product: str
    contract: str
    env: Mapping[str, str]
    window_mb: int | None  # the communicator's own buffer, when the caller knows it

    group_ep: str | None  # None: a call that is only described
    ep_world_size: int
    ep_rank_id: int
    moe_expert_num: int
    group_tp: str
    tp_world_size: int
    tp_rank_id: int
    expert_shard_type: int
    shared_expert_num: int
    shared_expert_rank_num: int
    global_bs: int
    comm_alg: str
    zero_expert_num: int
    copy_expert_num: int
    const_expert_num: int
    quant_mode: int
    expert_token_nums_type: int
    comm_quant_mode: int
    y_dtype: int | None
    x_dtype: int | None
    scales_dtype: int | None

    expert_ids: TensorLike
    x_active_mask: TensorLike | None
    expert_scales: TensorLike | None
    elastic_info: TensorLike | None
    performance_info: TensorLike | None
    scales: TensorLike | None
    assist_info_for_combine: TensorLike
    ep_send_counts: TensorLike
    tp_send_counts: TensorLike | None
    expand_scales: TensorLike | None
    shared_expert_x: TensorLike | None
    ori_x: TensorLike | None
    const_expert_alpha_1: TensorLike | None
    const_expert_alpha_2: TensorLike | None
    const_expert_v: TensorLike | None

    def __init__(
        self,
        op: str,
        args: Mapping[str, object],
        *,
        product: str,
        contract: str,
        env: Mapping[str, str] | None = None,
        window_mb: int | None = None,
    ) -> None:
        """Raises TypeError for a missing, unknown or wrongly typed keyword, as a Python call would."""
        arguments = self.__dict__
        arguments.update(DEFAULTS[op])
        arguments.update(args)
        require_types(op, args)
        self.op, self.product, self.contract = op, product, contract
        self.env = os.environ if env is None else env
        self.window_mb = window_mb

    @cached_property
    def limits(self) -> Limits:
        return LIMITS[self.contract, self.product]

    @cached_property
    def path(self) -> str:
        return select_path(
            product=self.product,
            contract=self.contract,
            ep_world_size=self.ep_world_size,
            comm_alg=self.comm_alg,
            env=self.env,
        )

    @cached_property
    def path_limits(self) -> PathLimits:
        return path_limits(self.contract, self.product, self.path)

    @cached_property
    def tokens(self) -> TensorLike:
        """X of dispatch, expand_x of combine."""
        tokens: TensorLike = self.__dict__["x" if self.op == "dispatch" else "expand_x"]
        return tokens

    @cached_property
    def tokens_param(self) -> str:
        return "x" if self.op == "dispatch" else "expand_x"

    @cached_property
    def batch(self) -> int | None:
        shape = self.tokens.shape if self.op == "dispatch" else self.expert_ids.shape
        return shape[0] if len(shape) == 2 else None

    @cached_property
    def hidden(self) -> int | None:
        shape = self.tokens.shape
        return shape[1] if len(shape) == 2 else None

    @cached_property
    def topk(self) -> int | None:
        shape = self.expert_ids.shape
        return shape[1] if len(shape) == 2 else None

    @cached_property
    def packed(self) -> bool:
        """int32 x: eight int4 in a word."""
        return self.op == "dispatch" and dtype_name(self.tokens) == "int32"

    @cached_property
    def shared_ranks(self) -> int:
        return 0 if self.product == "A2" else self.shared_expert_rank_num

    @cached_property
    def shared_experts(self) -> int:
        return self.shared_expert_num if self.shared_ranks else 0

    @cached_property
    def is_shared_rank(self) -> bool:
        return self.ep_rank_id < self.shared_ranks

    @cached_property
    def world(self) -> World | None:
        """Who holds which experts; None when the experts cannot be laid out."""
        moe_ranks = self.ep_world_size - self.shared_ranks
        if self.shared_ranks < 0 or moe_ranks <= 0:
            return None
        if self.moe_expert_num <= 0 or self.moe_expert_num % moe_ranks:
            return None
        if self.shared_ranks and not 0 < self.shared_expert_num <= self.shared_ranks:
            return None
        return World.of(
            ep_world_size=self.ep_world_size,
            moe_expert_num=self.moe_expert_num,
            shared_expert_num=self.shared_expert_num,
            shared_expert_rank_num=self.shared_ranks,
        )

    @cached_property
    def local_experts(self) -> int | None:
        """MoE experts of a MoE rank, also when this rank is a shared one."""
        return None if self.world is None else self.world.local_expert_num

    @cached_property
    def experts_total(self) -> int:
        """MoE and special experts: the ids that expert_ids may hold are [0, experts_total)."""
        special = self.zero_expert_num + self.copy_expert_num + self.const_expert_num
        return self.moe_expert_num + special

    @cached_property
    def tp_ranks(self) -> int:
        """max(tp_world_size, 1): the factor of buffers that also hold the TP peer's rows."""
        return max(self.tp_world_size, 1)

    @cached_property
    def max_batch(self) -> int | None:
        """Largest batch over the ranks: global_bs / ep, or the own batch when global_bs is 0 or invalid."""
        batch, ep = self.batch, self.ep_world_size
        if batch is None or ep <= 0:
            return None
        if self.global_bs % ep == 0 and self.global_bs >= batch * ep:
            return self.global_bs // ep
        return batch

    @cached_property
    def rows(self) -> int | None:
        """A, the rows of expand_x that one rank of the TP pair fills."""
        world, max_batch, topk = self.world, self.max_batch, self.topk
        if world is None or max_batch is None or topk is None:
            return None
        return world.rows_received_at_most(self.ep_rank_id, max_bs=max_batch, topk=topk)


def _kind(parameter: Parameter) -> str:
    return "a tensor" if parameter.is_tensor else {"s": "a str", "i": "an int"}[parameter.type[0]]


STOCK_NAME = {op: f"npu_moe_distribute_{op}_v2" for op in PARAMETERS}
DEFAULTS = {op: {p.name: p.default for p in table} for op, table in PARAMETERS.items()}
TENSOR_NAMES = {op: tuple(p.name for p in table if p.is_tensor) for op, table in PARAMETERS.items()}
_KINDS = {op: {p.name: _kind(p) for p in table} for op, table in PARAMETERS.items()}
_MAY_BE_NONE = {
    op: frozenset(p.name for p in table if not p.required and p.default is None)
    for op, table in PARAMETERS.items()
}
# A call that is only described needs no communicator.
_REQUIRED = {
    op: frozenset(p.name for p in table if p.required and p.name != "group_ep")
    for op, table in PARAMETERS.items()
}


def require_types(op: str, args: Mapping[str, object]) -> None:
    """Raises TypeError, naming the keyword, where a Python call of the operator would."""
    kinds, may_be_none = _KINDS[op], _MAY_BE_NONE[op]
    for key, value in args.items():
        kind = kinds.get(key)
        if kind is None:
            raise TypeError(f"{STOCK_NAME[op]}() got an unexpected keyword argument {key!a}")
        if value is None:
            fits = key in may_be_none
        elif kind == "an int":
            fits = isinstance(value, int) or type(value).__name__ == "SymInt"
        elif kind == "a str":
            fits = isinstance(value, str)
        else:
            fits = hasattr(value, "shape") and hasattr(value, "dtype")
        if not fits:
            raise TypeError(f"{STOCK_NAME[op]}(): {key} must be {kind}, not {type(value).__name__}")
    missing = _REQUIRED[op].difference(args)
    if missing:
        raise TypeError(
            f"{STOCK_NAME[op]}() misses required arguments: {', '.join(sorted(missing))}"
        )
