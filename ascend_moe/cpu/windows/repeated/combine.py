"""Combine in shared memory, prepared once for each kind of call; the steps are in ``native/combine.h``."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from ascend_moe.contract.errors import Violation
from ascend_moe.contract.handle import doubled_row, missing_row, slots_of
from ascend_moe.contract.signature import TENSOR_NAMES
from ascend_moe.cpu.windows.fields import KNOWN_WORDS, CombineFields, word_of, words_of
from ascend_moe.cpu.windows.layout import SENT_WORDS, CombineLayout, Sizes
from ascend_moe.cpu.windows.repeated.call import FastCall
from ascend_moe.cpu.windows.repeated.prepared import ELEMENTS, Checked
from ascend_moe.cpu.windows.repeated.tensors import Tensors
from ascend_moe.reference.combine import const_expert_rows
from ascend_moe.reference.routing import active_pairs

_INPUTS: Final = words_of(
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
_EXPAND_X: Final = TENSOR_NAMES["combine"].index("expand_x")


class Combine(FastCall):
    """Combine on full mesh as on A3, without TP and int8 rows."""

    op = "combine"
    Fields = CombineFields
    _first_output = word_of(CombineFields, "output")

    def _set_sizes(self, checked: Checked) -> None:
        call, world, fields = checked.call, checked.world, self.fields
        rows = call["expand_x"]
        self.specs = checked.specs
        fields.hidden, fields.element = rows.shape[1], ELEMENTS[rows.dtype]
        fields.row_bytes, fields.row_limit = rows.shape[1] * rows.itemsize, rows.shape[0]
        fields.prefix_length = slots_of(world, call["ep_rank_id"])
        fields.zero_experts = call["zero_expert_num"]
        fields.copy_experts = call["copy_expert_num"]
        self._blended = call["const_expert_num"] > 0
        self._blends: tuple[Tensor, ...] = ()
        """Kept as long as the steps read them."""
        self._sizes = Sizes(world, fields.max_bs, fields.topk, fields.row_bytes)
        fields.max_rows = self._sizes.rows_received_at_most
        self._known = (ctypes.c_int64 * (KNOWN_WORDS * self.windows.ranks))()
        fields.known = ctypes.addressof(self._known)
        self._set_layout(1)

    def _set_layout(self, rows_per_token: int) -> None:
        layout = CombineLayout.of(self._sizes)
        fields = self.fields
        fields.rows_at, fields.sent_at, fields.lists_at, self.needed = layout

    def _inputs(self, call: Mapping[str, Any]) -> dict[str, int]:
        if call["expert_scales"].shape == call["expert_ids"].shape:
            return _INPUTS
        return {name: at for name, at in _INPUTS.items() if name != "expert_scales"}

    def _before(self, tensors: Tensors) -> None:
        windows, fields = self.windows, self.fields
        if self._blended:
            self._blends = blends, blend_of = self._blend(self._call(tensors))
            fields.blends, fields.blend_of = blends.data_ptr(), blend_of.data_ptr()
        fields.memory = 0
        if windows.in_place.own:
            rows = tensors[_EXPAND_X]
            assert rows is not None
            found = windows.in_place.find(rows.data_ptr(), fields.row_bytes * fields.row_limit)
            (fields.memory, fields.descriptor, fields.memory_offset, fields.memory_size) = found

    def _map(self, rank: int) -> None:
        """Makes rows that a peer has in shared memory of its own readable here."""
        sent = self.area.base + self.fields.sent_at + rank * SENT_WORDS * 8
        _, number, descriptor, _, size = (ctypes.c_int64 * SENT_WORDS).from_address(sent)
        try:
            found = self.windows.in_place.map(rank, number, descriptor, size)
        except (OSError, OverflowError, ValueError):
            self.windows.reject_rows_of(rank)
        at = KNOWN_WORDS * rank
        self._known[at : at + KNOWN_WORDS] = [number, found.address, len(found.bytes)]

    def _blend(self, call: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
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
