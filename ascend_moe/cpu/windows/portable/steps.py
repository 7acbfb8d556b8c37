"""What dispatch and combine have in common: the order of the steps, what a rank says, and what it may say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ascend_moe.cpu.windows.control import NUMBERS, STATEMENT, Control
from ascend_moe.cpu.windows.fields import ANY, IS_RANK, Code, Phase
from ascend_moe.cpu.windows.portable import barrier
from ascend_moe.cpu.windows.portable.arrays import bytes_of
from ascend_moe.cpu.windows.portable.choice import Choice, Reader, Rules

_SAID = slice(1, 5 + NUMBERS)
"""Words of a statement that are compared: refused, way, early, rows per token, and the numbers."""
_EARLY, _ROWS_PER_TOKEN, _FIRST_NUMBER = 2, 3, 4
"""Of those words."""
_START, _FIRST_BARRIER, _JUDGED, _PUBLISH, _SECOND_BARRIER = map(int, Phase)


class Steps:
    """One kind of call. Each method is a step; what a call leaves behind is forgotten when it is over."""

    inputs: Mapping[str, Tensor] = MappingProxyType({})
    """Those that are given, contiguous."""
    outputs: Sequence[Tensor] = ()
    arrays: Sequence[NDArray[Any]] = ()
    """The outputs' memory; bf16 as integers."""
    choice: Choice

    def __init__(self, call: Any) -> None:
        """call: the `windows.calls.FastCall` whose fields are used."""
        self.call, self.fields = call, call.fields
        self.control: Control = call.windows.control
        self.own, self.ranks = call.windows.rank, call.windows.ranks
        fields = self.fields
        self.topk, self.slots = fields.topk, fields.topk + fields.shared_experts
        self.rules = Rules(*(getattr(fields, name) for name in Rules._fields))
        self._reader = Reader(self.rules)
        self._ids_bytes = fields.bs * fields.topk * 4
        self._mask_bytes = fields.bs * (fields.topk if fields.mask_dims == 2 else 1)
        self._numbers = np.ctypeslib.as_array(fields.numbers)
        words = self.control.statements.view(np.int64)
        said = words.reshape(self.ranks, 2, STATEMENT.itemsize // 8)[:, :, _SAID]
        self._said = said[:, 0], said[:, 1]
        """By parity of the barrier."""
        kinds = np.array(list(fields.comparison))
        self._compared = np.flatnonzero(np.append(np.ones(_FIRST_NUMBER, bool), kinds != ANY))
        self._wanted = np.zeros((self.ranks, _FIRST_NUMBER + NUMBERS), np.int64)
        self._wanted[:, _FIRST_NUMBER:] = self._numbers
        self._wanted[:, 1] = fields.way
        is_rank = _FIRST_NUMBER + int((kinds == IS_RANK).argmax())
        self._wanted[:, is_rank] = np.arange(self.ranks)
        self._told: tuple[int, ...] = ()
        """What of the statement may change from call to call, as `_wanted` has it."""
        self._agreed = b""
        """All statements of the last call, if nothing stood against it."""
        self._nobody_left = bytes(4 * self.ranks)
        self._views: dict[tuple[int, int, int], Any] = {}

    def take(
        self,
        inputs: Mapping[str, Tensor],
        outputs: Sequence[Tensor],
        arrays: Sequence[NDArray[Any]],
    ) -> None:
        """The tensors of the call that is made next."""
        self.inputs, self.outputs, self.arrays = inputs, outputs, arrays

    def forget(self) -> None:
        """Lets go of the tensors of the call that was made."""
        del self.inputs, self.outputs, self.arrays

    def step(self, _: int) -> int:
        """Runs until the call is done or somebody has to look."""
        fields = self.fields
        phase, early, number = fields.phase, fields.early, fields.barrier
        if phase == _START:
            if not self.valid():
                return Code.INVALID
            self._post(number)
            if early:
                self.publish(self.views())
            barrier.arrive(self.control, self.own, number)
            fields.phase = phase = _FIRST_BARRIER
        if phase == _FIRST_BARRIER:
            if not barrier.wait(self.control, number, fields.slice_us):
                return Code.WAITING
            if not self._agrees(number):
                return Code.LOOK
            fields.phase = phase = _JUDGED
        if phase == _JUDGED:
            if early:
                return self.receive(self.views())
            if not fields.room:
                return Code.NOT_PUBLISHED
            fields.phase = phase = _PUBLISH
        if phase == _PUBLISH:
            self.publish(self.views())
            fields.barrier = number = number + 1
            barrier.arrive(self.control, self.own, number)
            fields.phase = _SECOND_BARRIER
        if not barrier.wait(self.control, number, fields.slice_us):
            return Code.WAITING
        return self.receive(self.views())

    def valid(self) -> bool:
        """Whether this rank's own tensors are legal."""
        raise NotImplementedError

    def publish(self, views: Any) -> None:
        """Writes what the others need."""
        raise NotImplementedError

    def receive(self, views: Any) -> int:
        """Fetches what is this rank's own."""
        raise NotImplementedError

    def chosen_values(self) -> tuple[bytes, bytes]:
        """Of ids and mask."""
        inputs = self.inputs
        mask = bytes_of(inputs.get("x_active_mask"), self._mask_bytes)
        return bytes_of(inputs["expert_ids"], self._ids_bytes), mask

    def choose(self, values: tuple[bytes, bytes] | None = None) -> bool:
        """Whether the tokens' choices are legal. Equal ones are looked at once."""
        windows = self.call.windows
        values = values or self.chosen_values()
        known: Choice | None = windows.chosen
        if known is None or known.values != values or known.rules != self.rules:
            known = self._reader.choice(values)
            if known is None:
                return False
            windows.chosen = known
        self.adopt(known)
        return True

    def adopt(self, choice: Choice) -> None:
        """This is what the tokens chose."""
        self.choice = choice
        self.fields.numbers[self.fields.mask_number] = choice.active is not None

    def _post(self, number: int) -> None:
        fields = self.fields
        told = (fields.early, fields.rows_per_token, fields.numbers[fields.mask_number])
        if told != self._told:
            self._told = told
            self._wanted[:, _EARLY], self._wanted[:, _ROWS_PER_TOKEN] = told[:2]
            self._wanted[self.own, _FIRST_NUMBER:] = self._numbers
        self._said[number & 1][self.own] = self._wanted[self.own]

    def _agrees(self, number: int) -> bool:
        if self.control.left.tobytes() != self._nobody_left:
            return False
        said = self._said[number & 1]
        statements = said.tobytes()
        if statements == self._agreed:
            return True
        if not self._nothing_stands_against(said):
            return False
        self._agreed = statements
        return True

    def _nothing_stands_against(self, said: NDArray[np.int64]) -> bool:
        fields = self.fields
        if (said != self._wanted)[:, self._compared].any():
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
