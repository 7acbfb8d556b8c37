"""One kind of call, prepared once: what stays is worked out when a call is first found legal, and then only read."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch

from ascend_moe.contract.agreement import FIELDS
from ascend_moe.contract.errors import Violation
from ascend_moe.contract.resolve import Resolved
from ascend_moe.contract.shapes import TensorSpec, World, max_bs_of
from ascend_moe.contract.signature import (
    CANN_8_2,
    TENSOR_NAMES,
    attributes_of,
    by_name,
    tensors_of,
)
from ascend_moe.cpu.windows.fields import ANY, EQUAL, IS_RANK, CallFields
from ascend_moe.cpu.windows.group import FAST, SLICE_US, Windows
from ascend_moe.cpu.windows.repeated.tensors import Expectation, Tensors

ELEMENTS: Final = {torch.bfloat16: 0, torch.float16: 1, torch.int32: 2}
_COMPARED: Final = {"ep_rank_id": IS_RANK, "tp_rank_id": ANY, "bs": ANY, "masks_a_token": ANY}


@dataclass(frozen=True)
class Checked:
    """What is known about a call that passed its rank's own checks."""

    call: Mapping[str, Any]
    """Every keyword; tensors are contiguous."""
    world: World
    product: Resolved
    contract: Resolved
    numbers: list[int]
    """The rank's statement, in the order of ``FIELDS``."""
    what: str
    specs: tuple[TensorSpec, ...]
    """Of the outputs."""


class Prepared:
    """One kind of call of one operator on one group; `dispatch` and `combine` say what is theirs of it."""

    op: ClassVar[str]
    Fields: ClassVar[type[CallFields]]
    needed: int
    """Bytes of a half of the area."""
    specs: tuple[TensorSpec, ...]
    """Of the outputs."""
    _filled_in_full: object = None
    """See `warm.sets_of`."""
    _blended = False
    """Whether const experts take part."""
    _first_output: ClassVar[int]
    """The word of `fields` that takes the address of the first output."""
    _rows_before: ClassVar[int] = -1
    """The word that takes how many rows of the outputs are not zero; -1: outputs are written in full."""

    def __init__(self, windows: Windows, checked: Checked) -> None:
        call, world = checked.call, checked.world
        self.windows, self.world = windows, world
        self.product, self.contract, self.what = checked.product, checked.contract, checked.what
        self.area = windows.areas[self.op]
        self.fields = fields = self.Fields()
        ids, mask = call["expert_ids"], call["x_active_mask"]
        fields.group = windows.address
        fields.bs, fields.topk = ids.shape
        fields.max_bs = max_bs_of(
            ids.shape[0], ep_world_size=world.ep_world_size, global_bs=call["global_bs"]
        )
        fields.mask_dims = 0 if mask is None else mask.dim()
        fields.ordered_mask = fields.mask_dims == 1 or checked.contract.name == CANN_8_2
        fields.moe_experts, fields.local_experts = world.moe_expert_num, world.local_expert_num
        special = ("zero_expert_num", "copy_expert_num", "const_expert_num")
        fields.all_experts = world.moe_expert_num + sum(call[name] for name in special)
        fields.shared_experts = world.shared_expert_num
        fields.shared_ranks = world.shared_expert_rank_num
        fields.replicas = world.replicas_per_shared_expert
        fields.way, fields.rows_per_token = FAST, 1
        fields.mask_number = FIELDS.index("masks_a_token")
        fields.bs_number = FIELDS.index("bs")
        fields.has_global_bs = bool(call["global_bs"])
        fields.slice_us, fields.cache_bytes = SLICE_US, windows.cache_bytes
        for index, name in enumerate(FIELDS):
            fields.numbers[index] = checked.numbers[index]
            fields.comparison[index] = _COMPARED.get(name, EQUAL)
        self._set_sizes(checked)
        self._words = memoryview(fields).cast("B").cast("q")
        names = TENSOR_NAMES[self.op]
        tensors = tensors_of[self.op](call)
        inputs = self._inputs(call)
        words = [inputs.get(name, -1) for name in names]
        self._tensors = Expectation(tensors, words, self._words)
        self._attributes = attributes_of[self.op](call)
        self._performance_info = names.index("performance_info")
        self._step = getattr(windows.native, self.op)
        self._argument = ctypes.addressof(fields)

    def _set_sizes(self, checked: Checked) -> None:
        raise NotImplementedError

    def _set_layout(self, rows_per_token: int) -> None:
        """Offsets in the area, and what they need."""
        raise NotImplementedError

    def _inputs(self, call: Mapping[str, Any]) -> dict[str, int]:
        """The tensors that the steps read, and which word of ``fields`` each one's address is."""
        raise NotImplementedError

    def _before(self, tensors: Tensors) -> None:
        """What may change from call to call besides addresses: expert outputs in shared memory, const experts."""

    def _rows_written(self) -> int:
        """Rows of the outputs that are not zero now."""
        return 0

    def _bad_rows(self) -> list[Violation]:
        return []

    def _map(self, rank: int) -> None:
        raise NotImplementedError

    def _call(self, tensors: Tensors) -> dict[str, Any]:
        return by_name(self.op, tensors, self._attributes)
