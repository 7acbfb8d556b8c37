"""One kind of call, prepared once: what stays is worked out when a call is first found legal, and then only filled in.

A repeated call is one call into the native half (`repeat`), which returns early only when Python has to decide
something (``Code`` in ``native/call.h``). What that does not know goes step by step: the addresses of the tensors are
filled in, and outputs come from `warm`.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, NoReturn

import torch
from torch import Tensor

from ascend_moe.contract.agreement import FIELDS
from ascend_moe.contract.check import constraint_error
from ascend_moe.contract.errors import ConstraintError, Violation
from ascend_moe.contract.resolve import Resolved
from ascend_moe.contract.shapes import TensorSpec, World, max_bs_of
from ascend_moe.contract.signature import (
    CANN_8_2,
    TENSOR_NAMES,
    attributes_of,
    by_name,
    tensors_of,
)
from ascend_moe.cpu import warm
from ascend_moe.cpu.statements import found_in
from ascend_moe.cpu.windows.fields import (
    ANY,
    EQUAL,
    IS_RANK,
    CallFields,
    Code,
    Phase,
    word_of,
)
from ascend_moe.cpu.windows.group import FAST, SLICE_US, NoWindow, Windows
from ascend_moe.cpu.windows.repeat import Repeat, exchange_table
from ascend_moe.cpu.windows.tensors import Expectation, Tensors, addresses_of
from ascend_moe.patience import timeout_seconds

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


class FastCall:
    """One kind of call of one operator on one group."""

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
        where = addresses_of(names, self._inputs(call))
        self._tensors = Expectation(tensors, where, self._words)
        self._attributes = attributes_of[self.op](call)
        self._performance_info = names.index("performance_info")
        self._step = getattr(windows.native, self.op)
        self._argument = ctypes.addressof(fields)
        self._repeat: Repeat | None = None
        if exchange_table() and not self._tensors.strided:
            self._repeat = Repeat(
                windows.native,
                self._tensors,
                self._argument,
                is_combine=self.op == "combine",
                specs=self.specs,
                filled_in_full=self._filled_in_full,
                first_output=self._first_output,
                rows_before=self._rows_before,
            )

    def _set_sizes(self, checked: Checked) -> None:
        raise NotImplementedError

    def _set_layout(self, rows_per_token: int) -> None:
        """Offsets in the area, and what they need."""
        raise NotImplementedError

    def _inputs(self, call: Mapping[str, Any]) -> dict[str, int]:
        """The tensors that the steps read, and which word of ``fields`` each one's address is."""
        raise NotImplementedError

    def first(self, tensors: Tensors) -> Any:
        """The results of the call that this was prepared for; None when it is illegal after all."""
        outputs = self._natively(tensors)
        if outputs is None:
            self._tensors.take(tensors)
            outputs = self._step_by_step(tensors)
        return outputs

    def again(self, tensors: Tensors) -> Any:
        """The results of another call with the same attributes; None when it is of another kind, or illegal."""
        outputs = self._natively(tensors)
        if outputs is None and self._tensors.met_by(tensors):
            outputs = self._step_by_step(tensors)
        return outputs

    def _before(self, tensors: Tensors) -> None:
        """What may change from call to call besides addresses: expert outputs in shared memory, const experts."""

    def _natively(self, tensors: Tensors) -> Any:
        """None also when this takes more than the native half."""
        repeat = self._repeat
        if repeat is None:
            return None
        if (self._blended or self.windows.has_made_rows) and not self._tensors.met_by(tensors):
            return None  # `_before` must not see anything else
        first = self._begin(tensors)
        try:
            outputs = repeat.run(tensors)
            if outputs is None:
                return None
            code = repeat.code
            if code:
                self._finish(code, tensors)
                repeat.finished()
            else:
                self._done()
        except BaseException as error:
            self._failed(error, first)
            raise
        return self._results(tensors, outputs)

    def _step_by_step(self, tensors: Tensors) -> Any:
        """With addresses that are filled in."""
        words = self._words
        outputs, kept = warm.take(self._sets)
        before = kept.rows
        if self._rows_before >= 0:
            words[self._rows_before] = before
            kept.rows = self.specs[0].shape[0]  # should the call fail
        first = self._begin(tensors)
        words[self._first_output : self._first_output + len(outputs)] = kept.addresses
        try:
            code = self._step(self._argument)
            if code == Code.INVALID:
                kept.rows = before
                return None
            if code:
                self._finish(code, tensors)
            else:
                self._done()
        except BaseException as error:
            self._failed(error, first)
            raise
        if self._rows_before >= 0:
            kept.rows = self._rows_written()
        return self._results(tensors, tuple(outputs))

    def _results(self, tensors: Tensors, outputs: tuple[Tensor, ...]) -> Any:
        info = tensors[self._performance_info]
        if info is not None:
            self._add_waiting(info)
        return outputs if self.op == "dispatch" else outputs[0]

    @cached_property
    def _sets(self) -> warm.Sets:
        return warm.sets_of(self.specs, self._filled_in_full)

    def _rows_written(self) -> int:
        """Rows of the outputs that are not zero now."""
        return 0

    def _begin(self, tensors: Tensors) -> int:
        """The number of the barrier that the call comes to first."""
        windows, area, words = self.windows, self.area, self._words
        if windows.owed:
            windows.what = self.what
            windows.settle(time.monotonic() + timeout_seconds())
        if self._blended or windows.has_made_rows:
            self._before(tensors)
        first: int = windows.barrier + 1
        words[_PHASE], words[_BARRIER] = _START, first
        words[_EARLY] = area.find_free(self.needed, first)
        words[_BASE] = area.base
        # Who measures waiting wants to look between the two barriers.
        words[_ROOM] = area.size >= self.needed and tensors[self._performance_info] is None
        return first

    def _done(self) -> None:
        self.windows.barrier = barrier = self._words[_BARRIER]
        self.area.was_read(barrier)
        self._waited_before: list[int] = []

    def _failed(self, error: BaseException, first: int) -> None:
        if isinstance(error, (ConstraintError, NoWindow)):
            return  # all ranks know, and can go on
        windows = self.windows
        windows.barrier = max(windows.barrier, first)
        windows.leave(windows.state.broken or f"{type(error).__name__} in {self.what}")

    def _call(self, tensors: Tensors) -> dict[str, Any]:
        return by_name(self.op, tensors, self._attributes)

    def _finish(self, code: int, tensors: Tensors) -> None:
        """What the native half leaves to Python, until the call is done."""
        windows, area, fields = self.windows, self.area, self.fields
        deadline = time.monotonic() + timeout_seconds()
        self._waited_before = []
        windows.what, windows.barrier = self.what, fields.barrier
        while code not in (Code.DONE, Code.BAD_ROWS, Code.IN_PLACE):
            if code == Code.WAITING:
                windows.look_after_peers(fields.barrier, deadline)
            elif code == Code.LOOK:
                self._judge(tensors)
                fields.phase = Phase.JUDGED
            elif code == Code.NOT_PUBLISHED:
                self._waited_before = windows.microseconds_waited(fields.barrier)
                if area.size < self.needed:
                    windows.make_room(area, self.needed, deadline)
                fields.base, fields.barrier = area.base, windows.barrier
                fields.phase = Phase.PUBLISH
            elif code == Code.UNMAPPED:
                self._map(fields.detail)
            else:
                windows.reject_rows_of(fields.detail)
            code = self._step(self._argument)
            windows.barrier = fields.barrier
        area.was_read(windows.barrier)
        self._set_layout(fields.rows_per_token)  # after `_judge` asked for another
        if code == Code.IN_PLACE:
            windows.next_barrier(deadline)
        bad = self._bad_rows()
        if bad:
            self._raise(tensors, bad)

    def _judge(self, tensors: Tensors) -> None:
        """Statements that are not simply equal: raises what they say against the call."""
        windows, fields = self.windows, self.fields
        gave_up = windows.gave_up(fields.barrier)
        if gave_up:
            windows.fail([], gave_up)
        found = found_in(windows.statements(fields.barrier), "ep_rank_id")
        if found:
            self._raise(tensors, found)
        said = windows.control.statements[:, fields.barrier & 1]
        most = int(said["rows_per_token"].max())
        if most != int(said["rows_per_token"].min()):
            # Some ranks publish a row per token, others one per pair: again, with room for both.
            self._set_layout(most)
            fields.early = fields.room = 0
        elif not said["early"].all():
            fields.early = 0

    def _raise(self, tensors: Tensors, found: list[Violation]) -> NoReturn:
        call = self._call(tensors)
        raise constraint_error(self.op, call, found, self.product, self.contract, values=True)

    def _bad_rows(self) -> list[Violation]:
        return []

    def _map(self, rank: int) -> None:
        raise NotImplementedError

    def _add_waiting(self, info: Tensor) -> None:
        """How long this rank waited for each rank, in place (see `session.Session.finish`)."""
        info += torch.tensor(self.windows.microseconds_waited(self.windows.barrier))
        if self._waited_before:
            info += torch.tensor(self._waited_before)


_PHASE, _BARRIER, _EARLY, _ROOM, _BASE = (
    word_of(CallFields, name) for name in ("phase", "barrier", "early", "room", "base")
)
_START: Final = int(Phase.START)
