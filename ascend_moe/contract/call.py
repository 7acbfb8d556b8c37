"""One call, normalised: every keyword present, and the sizes that follow from it.

Symbols of the documents and their names here:

    BS   batch            rows of x (dispatch) or of expert_ids (combine)
    H    hidden           columns of x or expand_x
    K    topk             columns of expert_ids
    SN   shared_experts   effective: 0 when shared_expert_rank_num is 0, the default
    SR   shared_ranks     0 on A2, which has no shared experts
    A    rows             rows that expand_x must hold, see shapes.py

A derived size is None when the call is too broken to derive it; the rule that broke reports, and
rules that need the size stay silent. So one mistake is one violation.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ascend_moe.contract.buffsize import STOCK
from ascend_moe.contract.limits import LIMITS, Limits, PathLimits, path_limits
from ascend_moe.contract.path import select_path
from ascend_moe.contract.shapes import World
from ascend_moe.contract.signature import PARAMETERS, TENSOR_NAMES, Parameter


class TensorLike(Protocol):
    """What shape and dtype rules read: torch tensors on any device, or a DescribedTensor."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes."""

    @property
    def dtype(self) -> object:
        """A torch dtype, or its name."""


@dataclass(frozen=True)
class DescribedTensor:
    """A tensor that need not exist: from a file of `ascend-moe check` or an example."""

    shape: tuple[int, ...]
    dtype: str
    contiguous: bool = True
    requires_grad: bool = False
    values: object = None  # nested tuples, for rules that read contents

    def is_contiguous(self) -> bool:
        """As torch.Tensor.is_contiguous."""
        return self.contiguous


_DTYPE_NAMES: dict[object, str] = {}


def dtype_name(tensor: TensorLike) -> str:
    """The name of a tensor's dtype, "bfloat16" for torch.bfloat16, without importing torch."""
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
    implementation: str  # who will run it, and has the windows: "stock", "ascend_moe" or "cpu"

    group_ep: str | None  # None: the call is only described
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

    limits: Limits  # what the product allows in the contract
    path: str
    path_limits: PathLimits

    # Derived sizes. Every rule reads some of them, so they are computed once, in `_derive`.
    tokens: TensorLike  # x of dispatch, expand_x of combine
    batch: int | None
    hidden: int | None  # words for int32 x
    topk: int | None
    packed: bool  # int32 x: eight int4 in a word
    mask: TensorLike | None  # x_active_mask where the path has one: who is switched off
    shared_ranks: int
    shared_experts: int
    is_shared_rank: bool
    world: World | None  # None when the experts cannot be laid out
    local_experts: int | None  # of a MoE rank, also when this rank is a shared one
    experts_total: int  # MoE and special: expert_ids may hold [0, experts_total)
    tp_ranks: int  # max(tp_world_size, 1): the factor of buffers that also hold the peer's rows
    max_batch: int | None  # of any rank: global_bs / ep, or the own if global_bs is 0 or wrong
    rows: int | None  # A, without the TP peer's rows
    elastic: bool  # elastic_info is given: outputs have room for what any rank may become

    def __init__(
        self,
        op: str,
        args: Mapping[str, object],
        *,
        product: str,
        contract: str,
        env: Mapping[str, str] | None = None,
        window_mb: int | None = None,
        implementation: str = STOCK,
    ) -> None:
        """Raises TypeError for a missing, unknown or wrongly typed keyword, as Python would."""
        arguments = self.__dict__
        arguments.update(DEFAULTS[op])
        arguments.update(args)
        require_types(op, args)
        self.op, self.product, self.contract = op, product, contract
        self.env = os.environ if env is None else env
        self.window_mb = window_mb
        self.implementation = implementation
        self.limits = LIMITS[contract, product]
        self.path = select_path(
            product=product,
            contract=contract,
            ep_world_size=self.ep_world_size,
            comm_alg=self.comm_alg,
            env=self.env,
        )
        self.path_limits = path_limits(contract, product, self.path)
        self.tokens = arguments["x" if op == "dispatch" else "expand_x"]
        self._derive()

    def _derive(self) -> None:
        dispatch = self.op == "dispatch"
        tokens, ids = self.tokens.shape, self.expert_ids.shape
        rows = tokens if dispatch else ids
        self.batch = rows[0] if len(rows) == 2 else None
        self.hidden = tokens[1] if len(tokens) == 2 else None
        self.topk = ids[1] if len(ids) == 2 else None
        self.mask = None if self.path_limits.mask_ignored else self.x_active_mask
        self.elastic = self.elastic_info is not None
        self.packed = dispatch and dtype_name(self.tokens) == "int32"
        self.shared_ranks = 0 if self.product == "A2" else self.shared_expert_rank_num
        self.shared_experts = self.shared_expert_num if self.shared_ranks else 0
        self.is_shared_rank = self.ep_rank_id < self.shared_ranks
        special = self.zero_expert_num + self.copy_expert_num + self.const_expert_num
        self.experts_total = self.moe_expert_num + special
        self.tp_ranks = max(self.tp_world_size, 1)
        self.world = world = self._world()
        self.local_experts = None if world is None else world.local_expert_num
        self.max_batch = max_batch = self._max_batch()
        self.rows = None
        if world is not None and max_batch is not None and self.topk is not None:
            ranks = world.kinds_of_ranks if self.elastic else (self.ep_rank_id,)
            self.rows = max(
                world.rows_received_at_most(rank, max_bs=max_batch, topk=self.topk)
                for rank in ranks
            )

    def _world(self) -> World | None:
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

    def _max_batch(self) -> int | None:
        batch, ep = self.batch, self.ep_world_size
        if batch is None or ep <= 0:
            return None
        if self.global_bs % ep == 0 and self.global_bs >= batch * ep:
            return self.global_bs // ep
        return batch

    @property
    def tensors(self) -> list[TensorLike]:
        """The tensors that are given."""
        values = self.__dict__
        return [values[name] for name in TENSOR_NAMES[self.op] if values[name] is not None]


STOCK_NAME = {op: f"npu_moe_distribute_{op}_v2" for op in PARAMETERS}
DEFAULTS = {op: {p.name: p.default for p in table} for op, table in PARAMETERS.items()}

_KIND = {"T": "a tensor", "s": "a str", "i": "an int"}  # by the first letter of the schema type
_PARAMETERS = {op: {p.name: p for p in table} for op, table in PARAMETERS.items()}
# A call that is only described needs no communicator.
_REQUIRED = {
    op: frozenset(p.name for p in table if p.required and p.name != "group_ep")
    for op, table in PARAMETERS.items()
}
_ACCEPTED: set[tuple[object, ...]] = set()  # keywords and their Python types, as met before


def require_types(op: str, args: Mapping[str, object]) -> None:
    """Raises TypeError, naming the keyword, where a Python call of the operator would."""
    kinds = (op, *args, *map(type, args.values()))
    if kinds in _ACCEPTED:
        return
    parameters = _PARAMETERS[op]
    for name, value in args.items():
        parameter = parameters.get(name)
        if parameter is None:
            raise TypeError(f"{STOCK_NAME[op]}() got an unexpected keyword argument {name!a}")
        if not _accepts(parameter, value):
            wanted, got = _KIND[parameter.type[0]], type(value).__name__
            raise TypeError(f"{STOCK_NAME[op]}(): {name} must be {wanted}, not {got}")
    missing = _REQUIRED[op].difference(args)
    if missing:
        names = ", ".join(sorted(missing))
        raise TypeError(f"{STOCK_NAME[op]}() misses required arguments: {names}")
    _ACCEPTED.add(kinds)


def _accepts(parameter: Parameter, value: object) -> bool:
    if value is None:
        return parameter.type.endswith("?")
    if parameter.is_tensor:
        return hasattr(value, "shape") and hasattr(value, "dtype")
    if parameter.type == "str":
        return isinstance(value, str)
    return isinstance(value, int) or type(value).__name__ == "SymInt"
