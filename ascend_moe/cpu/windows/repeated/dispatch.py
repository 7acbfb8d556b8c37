"""Dispatch in shared memory, prepared once for each kind of call; the steps are in ``native/dispatch.h``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ascend_moe.contract.handle import slots_of
from ascend_moe.cpu.windows.fields import DispatchFields, word_of, words_of
from ascend_moe.cpu.windows.layout import DispatchLayout, Sizes
from ascend_moe.cpu.windows.repeated.call import FastCall
from ascend_moe.cpu.windows.repeated.prepared import ELEMENTS, Checked
from ascend_moe.reference.quant import rows_carry_scales

_INPUTS: Final = words_of(
    DispatchFields,
    expert_ids="ids",
    x_active_mask="mask",
    x="x",
    scales="scales",
    expert_scales="expert_scales",
)


class Dispatch(FastCall):
    """Dispatch in every mode but TP and hierarchy."""

    op = "dispatch"
    Fields = DispatchFields
    _first_output = word_of(DispatchFields, "expand_x")
    _rows_before = word_of(DispatchFields, "rows_before")

    def _set_sizes(self, checked: Checked) -> None:
        call, world, fields = checked.call, checked.world, self.fields
        x = call["x"]
        self.specs = checked.specs
        fields.hidden, fields.element = x.shape[1], ELEMENTS[x.dtype]
        fields.quantised = call["quant_mode"] != 0
        fields.row_bytes = x.shape[1] * (1 if fields.quantised else x.itemsize)
        fields.smooth = fields.quantised and call["scales"] is not None
        fields.carries_scales = rows_carry_scales(x, call["quant_mode"])
        fields.handle_of_a2 = checked.product.name == "A2"
        ordinals = call["expert_ids"].numel() if fields.handle_of_a2 else 0
        self._filled_in_full = (slots_of(world, call["ep_rank_id"]), ordinals)
        fields.token_nums_type = call["expert_token_nums_type"]
        fields.max_rows = self.specs[0].shape[0]
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
        return _INPUTS

    def _rows_written(self) -> int:
        return int(self.fields.rows_received)
