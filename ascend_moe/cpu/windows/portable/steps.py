"""What dispatch and combine have in common: the order of the steps, what a rank says, and what it may say."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ascend_moe.cpu.windows.control import NUMBERS, STATEMENT, Control
from ascend_moe.cpu.windows.fields import ANY, IS_RANK, Code, Phase
from ascend_moe.cpu.windows.portable import barrier

_SAID = slice(1, 5 + NUMBERS)
"""Words of a statement that are compared: refused, way, early, rows per token, and the numbers."""
_EARLY, _ROWS_PER_TOKEN, _FIRST_NUMBER = 2, 3, 4
"""Of those words."""


class Steps:
    """One kind of call. Each method is a step; what a call leaves behind is forgotten when it is over."""

    def __init__(self, call: Any) -> None:
        """call: the `windows.calls.FastCall` whose fields and tensors are used."""
        self.call, self.fields = call, call.fields
        self.control: Control = call.windows.control
        self.own, self.ranks = call.windows.rank, call.windows.ranks
        self.topk, self.slots = self.fields.topk, self.fields.topk + self.fields.shared_experts
        self._numbers = np.ctypeslib.as_array(self.fields.numbers)
        words = self.control.statements.view(np.int64)
        self._said = words.reshape(self.ranks, 2, STATEMENT.itemsize // 8)[:, :, _SAID]
        kinds = np.array(list(self.fields.comparison))
        self._compared = np.flatnonzero(np.append(np.ones(_FIRST_NUMBER, bool), kinds != ANY))
        self._wanted = np.zeros((self.ranks, _FIRST_NUMBER + NUMBERS), np.int64)
        self._wanted[:, _FIRST_NUMBER:] = self._numbers
        self._wanted[:, 1] = self.fields.way
        is_rank = _FIRST_NUMBER + int((kinds == IS_RANK).argmax())
        self._wanted[:, is_rank] = np.arange(self.ranks)
        self._told: tuple[int, ...] = ()
        """What of the statement may change from call to call, as `_wanted` has it."""
        self._all_equal = b""
        """What the ranks' statements are, as far as they are compared, if they agree."""
        self._every_pair = np.ones((self.fields.bs, self.slots), bool)
        self._views: dict[tuple[int, int, int], Any] = {}

    def forget(self) -> None:
        """Lets go of the tensors of the call that was made."""
        for name in ("ids", "active", "rows", "triples", "places"):
            self.__dict__.pop(name, None)

    def step(self, _: int) -> int:
        """Runs until the call is done or somebody has to look."""
        fields = self.fields
        if fields.phase == Phase.START:
            if not self.valid():
                return Code.INVALID
            self._post()
            if fields.early:
                self.publish()
            barrier.arrive(self.control, self.own, fields.barrier)
            fields.phase = Phase.FIRST_BARRIER
        if fields.phase == Phase.FIRST_BARRIER:
            if not barrier.wait(self.control, fields.barrier, fields.slice_us):
                return Code.WAITING
            if not self._agrees():
                return Code.LOOK
            fields.phase = Phase.JUDGED
        if fields.phase == Phase.JUDGED:
            if fields.early:
                return self.receive()
            if not fields.room:
                return Code.NOT_PUBLISHED
            fields.phase = Phase.PUBLISH
        if fields.phase == Phase.PUBLISH:
            self.publish()
            fields.barrier += 1
            barrier.arrive(self.control, self.own, fields.barrier)
            fields.phase = Phase.SECOND_BARRIER
        if not barrier.wait(self.control, fields.barrier, fields.slice_us):
            return Code.WAITING
        return self.receive()

    def valid(self) -> bool:
        """Whether this rank's own tensors are legal."""
        raise NotImplementedError

    def publish(self) -> None:
        """Writes what the others need."""
        raise NotImplementedError

    def receive(self) -> int:
        """Fetches what is this rank's own."""
        raise NotImplementedError

    def choices_are_legal(self) -> bool:
        """Rules X-34, X-36 and X-37; says which pairs take part, None: all."""
        fields, mask_tensor = self.fields, self.call.inputs.get("x_active_mask")
        self.ids = ids = self.call.inputs["expert_ids"].numpy()
        self.active: NDArray[np.bool_] | None = None
        masks = False
        if mask_tensor is not None:
            mask = mask_tensor.numpy()
            here = mask if mask.ndim == 1 else mask.any(axis=1)
            count = int(here.sum())
            if fields.ordered_mask and not here[:count].all():
                return False
            masks = not mask.all()
            if masks:
                active = mask if mask.ndim == 2 else (np.arange(len(ids)) < count)[:, None]
                self.active = np.broadcast_to(active, ids.shape)
        fields.numbers[fields.mask_number] = masks
        chosen = self.call.windows.chosen
        if self.active is None and chosen == (fields.all_experts, ids.shape, ids.tobytes()):
            return True  # as for the dispatch that this combine belongs to
        picked = ids if self.active is None else ids[self.active]
        if picked.size and picked.view(np.uint32).max() >= fields.all_experts:
            return False
        if self.topk > 1:
            if self.active is not None:  # an inactive pair equals nothing
                ids = np.where(self.active, ids, -1 - np.arange(self.topk))
            ordered = np.sort(ids, axis=1)
            if (ordered[:, 1:] == ordered[:, :-1]).any():
                return False
        if self.active is None:
            self.call.windows.chosen = (fields.all_experts, ids.shape, ids.tobytes())
        return True

    def pairs_that_travel(self) -> NDArray[np.bool_]:
        """(BS, slots): the pairs that become rows of an expert's rank."""
        fields = self.fields
        if self.active is None and fields.all_experts == fields.moe_experts:
            return self._every_pair
        active = self._every_pair[:, : self.topk] if self.active is None else self.active
        found = np.empty_like(self._every_pair)
        np.logical_and(active, self.ids < fields.moe_experts, out=found[:, : self.topk])
        found[:, self.topk :] = active.any(axis=1, keepdims=True)
        return found

    def _post(self) -> None:
        fields = self.fields
        told = (fields.early, fields.rows_per_token, fields.numbers[fields.mask_number])
        if told != self._told:
            self._told = told
            self._wanted[:, _EARLY], self._wanted[:, _ROWS_PER_TOKEN] = told[:2]
            self._wanted[self.own, _FIRST_NUMBER:] = self._numbers
            self._all_equal = self._wanted[:, self._compared].tobytes()
        self._said[self.own, fields.barrier & 1] = self._wanted[self.own]

    def _agrees(self) -> bool:
        fields = self.fields
        said = self._said[:, fields.barrier & 1]
        if self.control.left.any() or said[:, self._compared].tobytes() != self._all_equal:
            return False
        if (said[:, _FIRST_NUMBER + fields.bs_number] == fields.bs).all():
            return True
        masks = said[:, _FIRST_NUMBER + fields.mask_number].any()
        return bool(fields.has_global_bs) and not masks

    def views(self) -> Any:
        """The arrays of the area's half that the call uses."""
        key = (self.fields.base, self.call.needed, self.call.area.size)
        found = self._views.get(key)
        if found is None:
            area = self.call.area
            start = self.fields.base - area.memory.address
            if len(self._views) > 2:
                self._views.clear()
            found = self._views[key] = self._cut(area.memory.bytes[start : start + area.size])
        return found

    def _cut(self, half: Tensor) -> Any:
        raise NotImplementedError
