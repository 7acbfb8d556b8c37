"""One kind of call, prepared once: what stays is worked out when a call is first found legal, and then only filled in.

A repeated call costs a look-up, the addresses of its tensors, its outputs from `warm`, and one call into the native
half, which returns early only when Python has to decide something (``Code`` in ``native/call.h``).
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, ClassVar, Final, NoReturn

import torch
from torch import Tensor

from ascend_moe.contract.agreement import FIELDS
from ascend_moe.contract.check import constraint_error
from ascend_moe.contract.errors import ConstraintError, PeerError, Violation
from ascend_moe.contract.handle import doubled_row, missing_row, slots_of
from ascend_moe.contract.resolve import Resolved
from ascend_moe.contract.shapes import (
    TensorSpec,
    World,
    combine_spec,
    dispatch_specs_of_call,
    max_bs_of,
)
from ascend_moe.contract.signature import CANN_8_2
from ascend_moe.cpu import warm
from ascend_moe.cpu.statements import found_in
from ascend_moe.cpu.windows import portable
from ascend_moe.cpu.windows.fields import (
    ANY,
    EQUAL,
    IS_RANK,
    CallFields,
    Code,
    CombineFields,
    DispatchFields,
    Phase,
)
from ascend_moe.cpu.windows.group import FAST, SLICE_US, NoWindow, Windows
from ascend_moe.cpu.windows.layout import SENT_WORDS, CombineLayout, DispatchLayout, Sizes
from ascend_moe.patience import timeout_seconds
from ascend_moe.reference.combine import const_expert_rows
from ascend_moe.reference.quant import rows_carry_scales
from ascend_moe.reference.routing import active_pairs

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
        given = {
            name: where for name, where in self._inputs(call).items() if call[name] is not None
        }
        self._tensors_of = itemgetter(*given)
        self._names, self._fields_of_inputs = tuple(given), tuple(given.values())
        self._expand_x = self._names.index("expand_x") if self.op == "combine" else -1
        self._strided = any(not call[name].is_contiguous() for name in given)
        self._words = memoryview(fields).cast("B").cast("q")
        self._sets = warm.sets_of(self.specs, self._filled_in_full)
        self.inputs: dict[str, Tensor] = {}
        self.outputs: Sequence[Tensor] = ()
        self.arguments: Mapping[str, Any] = {}
        """Of the call that is being made, for `portable`."""
        native = windows.native
        if native is None:
            self._portable = portable.STEPS[self.op](self)
            self._step, self._argument = self._portable.step, 0
        else:
            self._step = getattr(native, self.op)
            self._argument = ctypes.addressof(fields)

    def _set_sizes(self, checked: Checked) -> None:
        raise NotImplementedError

    def _set_layout(self, rows_per_token: int) -> None:
        """Offsets in the area, and what they need."""
        raise NotImplementedError

    def _inputs(self, call: Mapping[str, Any]) -> dict[str, int]:
        """The tensors that the steps read, and which word of ``fields`` each one's address is."""
        raise NotImplementedError

    def run(self, call: Mapping[str, Any]) -> Any:
        """The operator's results; None when the call is illegal after all."""
        raise NotImplementedError

    def _take_inputs(self, call: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Fills in the addresses; they are good as long as the tensors that are returned live."""
        tensors: tuple[Tensor, ...] = self._tensors_of(call)
        if self._strided:
            tensors = tuple(tensor.contiguous() for tensor in tensors)
        words = self._words
        for word, tensor in zip(self._fields_of_inputs, tensors):  # noqa: B905 (0.1 us)
            words[word] = tensor.data_ptr()
        return tensors

    def _go(
        self, call: Mapping[str, Any], tensors: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> bool:
        """Makes the call; its tensors are filled in. False: it is illegal, and nothing was said to the peers."""
        windows, area, words = self.windows, self.area, self._words
        if windows.owed:
            windows.what = self.what
            windows.settle(time.monotonic() + timeout_seconds())
        first = windows.barrier + 1
        words[0], words[1], words[3] = 0, first, area.base
        words[2] = area.is_free(self.needed, first)
        if windows.native is None:
            self.inputs = dict(zip(self._names, tensors, strict=True))
            self.outputs, self.arguments = outputs, call
        try:
            code = self._step(self._argument)
            if code == _INVALID:
                return False
            if code:
                self._finish(code, call)
            else:
                windows.barrier = first
                area.was_read(first)
                self._waited_before: list[int] = []
        except (ConstraintError, NoWindow):  # all ranks know, and can go on
            raise
        except BaseException as error:
            windows.barrier = max(windows.barrier, first)
            windows.leave(windows.state.broken or f"{type(error).__name__} in {self.what}")
            raise
        finally:
            if windows.native is None:
                self.inputs, self.outputs, self.arguments = {}, (), {}
                self._portable.forget()
        info = call["performance_info"]
        if info is not None:
            self._add_waiting(info)
        return True

    def _finish(self, code: int, call: Mapping[str, Any]) -> None:
        """What the native half leaves to Python, until the call is done."""
        windows, area, fields = self.windows, self.area, self.fields
        deadline = time.monotonic() + timeout_seconds()
        self._waited_before = []
        windows.what, windows.barrier = self.what, fields.barrier
        while code not in (Code.DONE, Code.BAD_ROWS, Code.IN_PLACE):
            if code == Code.WAITING:
                windows.look_after_peers(fields.barrier, deadline)
            elif code == Code.LOOK:
                self._judge(call)
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
                rank = fields.detail
                windows.leave(f"rank {rank} published rows that cannot be")
                raise PeerError(f"{self.what}: {windows.state.broken}", [rank])
            code = self._step(self._argument)
            windows.barrier = fields.barrier
        area.was_read(windows.barrier)
        self._set_layout(fields.rows_per_token)  # after `_judge` asked for another
        if code == Code.IN_PLACE:
            windows.next_barrier(deadline)
        bad = self._bad_rows()
        if bad:
            self._raise(call, bad)

    def _judge(self, call: Mapping[str, Any]) -> None:
        """Statements that are not simply equal: raises what they say against the call."""
        windows, fields = self.windows, self.fields
        gave_up = windows.gave_up(fields.barrier)
        if gave_up:
            windows.fail([], gave_up)
        found = found_in(windows.statements(fields.barrier), "ep_rank_id")
        if found:
            self._raise(call, found)
        said = windows.control.statements[:, fields.barrier & 1]
        most = int(said["rows_per_token"].max())
        if most != int(said["rows_per_token"].min()):
            # Some ranks publish a row per token, others one per pair: again, with room for both.
            self._set_layout(most)
            fields.early = 0
        elif not said["early"].all():
            fields.early = 0

    def _raise(self, call: Mapping[str, Any], found: list[Violation]) -> NoReturn:
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


_INVALID: Final = int(Code.INVALID)


def _word(name: str, fields: type[CallFields]) -> int:
    return int(getattr(fields, name).offset) // 8


class Dispatch(FastCall):
    """Dispatch in every mode but TP and hierarchy."""

    op = "dispatch"
    Fields = DispatchFields

    def _set_sizes(self, checked: Checked) -> None:
        call, world, fields = checked.call, checked.world, self.fields
        x = call["x"]
        self.specs = dispatch_specs_of_call(call)
        fields.hidden, fields.element = x.shape[1], ELEMENTS[x.dtype]
        fields.quantised = call["quant_mode"] != 0
        fields.row_bytes = x.shape[1] * (1 if fields.quantised else x.itemsize)
        fields.smooth = fields.quantised and call["scales"] is not None
        fields.carries_scales = rows_carry_scales(x, call["quant_mode"])
        fields.handle_of_a2 = checked.product.name == "A2"
        ordinals = call["expert_ids"].numel() if fields.handle_of_a2 else 0
        self._filled_in_full = (slots_of(world, call["ep_rank_id"]), ordinals)
        fields.token_nums_type = call["expert_token_nums_type"]
        fields.max_rows = self.specs.expand_x.shape[0]
        self._sizes = Sizes(world, fields.max_bs, fields.topk, fields.row_bytes)
        if fields.smooth:
            fields.rows_per_token = self._sizes.slots
        self._set_layout(fields.rows_per_token)

    def _set_layout(self, rows_per_token: int) -> None:
        layout = DispatchLayout.of(self._sizes, rows_per_token)
        fields = self.fields
        fields.layout_rows_per_token = rows_per_token
        *offsets, self.needed = layout
        for name, offset in zip(DispatchLayout._fields, offsets, strict=False):
            setattr(fields, name, offset)

    def _inputs(self, call: Mapping[str, Any]) -> dict[str, int]:
        return _DISPATCH_INPUTS

    def run(self, call: Mapping[str, Any]) -> tuple[Tensor, ...] | None:
        tensors = self._take_inputs(call)
        outputs, kept = warm.take(self._sets)
        words, fields = self._words, self.fields
        words[_OUTPUTS : _OUTPUTS + 7] = kept.addresses
        words[_ROWS_BEFORE] = before = kept.rows
        kept.rows = fields.max_rows
        if not self._go(call, tensors, outputs):
            kept.rows = before
            return None
        kept.rows = words[_ROWS_RECEIVED]
        return tuple(outputs)


class Combine(FastCall):
    """Combine on full mesh as on A3, without TP and int8 rows."""

    op = "combine"
    Fields = CombineFields

    def _set_sizes(self, checked: Checked) -> None:
        call, world, fields = checked.call, checked.world, self.fields
        rows = call["expand_x"]
        self.specs = (
            combine_spec(
                bs=fields.bs,
                hidden=rows.shape[1],
                expand_x_dtype=str(rows.dtype).removeprefix("torch."),
            ),
        )
        fields.hidden, fields.element = rows.shape[1], ELEMENTS[rows.dtype]
        fields.row_bytes, fields.row_limit = rows.shape[1] * rows.itemsize, rows.shape[0]
        fields.prefix_length = slots_of(world, call["ep_rank_id"])
        fields.zero_experts = call["zero_expert_num"]
        fields.copy_experts = call["copy_expert_num"]
        self._sizes = Sizes(world, fields.max_bs, fields.topk, fields.row_bytes)
        fields.max_rows = self._sizes.rows_received_at_most
        self._known = (ctypes.c_int64 * (2 * self.windows.ranks))()
        fields.known = ctypes.addressof(self._known)
        self._set_layout(1)

    def _set_layout(self, rows_per_token: int) -> None:
        layout = CombineLayout.of(self._sizes)
        fields = self.fields
        fields.rows_at, fields.sent_at, fields.lists_at, self.needed = layout

    def _inputs(self, call: Mapping[str, Any]) -> dict[str, int]:
        if call["expert_scales"].shape == call["expert_ids"].shape:
            return _COMBINE_INPUTS
        return {name: at for name, at in _COMBINE_INPUTS.items() if name != "expert_scales"}

    def run(self, call: Mapping[str, Any]) -> Tensor | None:
        tensors = self._take_inputs(call)
        if call["const_expert_num"]:
            blends, blend_of = self._blends(call)
            self.fields.blends, self.fields.blend_of = blends.data_ptr(), blend_of.data_ptr()
        windows, fields = self.windows, self.fields
        fields.memory = 0
        if windows.own_rows:
            found = windows.shared_rows(
                tensors[self._expand_x].data_ptr(), fields.row_bytes * fields.row_limit
            )
            (fields.memory, fields.descriptor, fields.memory_offset, fields.memory_size) = found
        fields.missing_count = fields.doubled_count = 0
        outputs, kept = warm.take(self._sets)
        self._words[_OUTPUT] = kept.addresses[0]
        return outputs[0] if self._go(call, tensors, outputs) else None

    def _map(self, rank: int) -> None:
        """Makes rows that a peer has in shared memory of its own readable here."""
        sent = self.area.base + self.fields.sent_at + rank * SENT_WORDS * 8
        _, number, descriptor, _, size = (ctypes.c_int64 * SENT_WORDS).from_address(sent)
        self._known[2 * rank] = number
        self._known[2 * rank + 1] = self.windows.map_rows(rank, number, descriptor, size)

    def _blends(self, call: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """What const experts give: fp32 rows, and int32 (BS, K) which of them belongs to a pair."""
        ids = call["expert_ids"]
        first = self.fields.all_experts - call["const_expert_num"]
        chosen = (ids >= first) & active_pairs(ids, call["x_active_mask"])
        chosen &= ids < self.fields.all_experts
        expert = ids[chosen].long() - first
        alphas = (
            call[name][expert].float()
            for name in ("const_expert_alpha_1", "const_expert_alpha_2", "const_expert_v")
        )
        token = chosen.nonzero()[:, 0]
        rows = const_expert_rows(call["ori_x"][token].float(), *alphas)
        index = torch.zeros(ids.shape, dtype=torch.int32)
        index[chosen] = torch.arange(len(rows), dtype=torch.int32)
        return rows.contiguous(), index

    def _bad_rows(self) -> list[Violation]:
        fields, found = self.fields, []
        rank, slots = self.windows.rank, self._sizes.slots
        if fields.doubled_count:
            found.append(doubled_row(rank, *_place(fields.doubled, slots), fields.doubled_count))
        if fields.missing_count:
            found.append(missing_row(rank, *_place(fields.missing, slots), fields.missing_count))
        return found


def _place(index: int, slots: int) -> tuple[int, int]:
    return index // slots, index % slots


def _words_of(fields: type[CallFields], **inputs: str) -> dict[str, int]:
    return {name: _word(field, fields) for name, field in inputs.items()}


_DISPATCH_INPUTS: Final = _words_of(
    DispatchFields,
    expert_ids="ids",
    x_active_mask="mask",
    x="x",
    scales="scales",
    expert_scales="expert_scales",
)
_COMBINE_INPUTS: Final = _words_of(
    CombineFields,
    expert_ids="ids",
    x_active_mask="mask",
    expand_x="expand_x",
    assist_info_for_combine="assist_info",
    ep_send_counts="send_counts",
    expert_scales="weights",
    shared_expert_x="shared_expert_x",
    ori_x="ori_x",
)
_OUTPUTS, _ROWS_BEFORE, _ROWS_RECEIVED = (
    _word(name, DispatchFields) for name in ("expand_x", "rows_before", "rows_received")
)
_OUTPUT: Final = _word("output", CombineFields)
