"""One kind of call, made again and again.

One call into the native half (`repeat`) makes it, from tensors to tensors. What that does not know goes step by step:
the addresses of the tensors are filled in, and outputs come from `warm`. What neither decides is in `surprises`.
"""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any, ClassVar, Final

from torch import Tensor

from ascend_moe.cpu.windows.fields import CallFields, Code, Phase, word_of
from ascend_moe.cpu.windows.group import Windows
from ascend_moe.cpu.windows.repeated import warm
from ascend_moe.cpu.windows.repeated.prepared import Checked
from ascend_moe.cpu.windows.repeated.repeat import Repeat, exchange_table
from ascend_moe.cpu.windows.repeated.surprises import Surprises
from ascend_moe.cpu.windows.repeated.tensors import Tensors
from ascend_moe.patience import timeout_seconds


class FastCall(Surprises):
    """One kind of call of one operator on one group, with its own steps in shared memory."""

    kept_at_most: ClassVar[int] = 1024
    """Kinds that a group remembers, of some 10 KB each."""
    in_one_function: ClassVar[bool] = True
    """Whether the native half has a function from tensors to tensors for it (`repeat`)."""

    def __init__(self, windows: Windows, checked: Checked) -> None:
        super().__init__(windows, checked)
        self._repeat: Repeat | None = None
        if self.in_one_function and exchange_table() and not self._tensors.strided:
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

    def _natively(self, tensors: Tensors) -> Any:
        """None also when this takes more than the native half."""
        repeat = self._repeat
        if repeat is None:
            return None
        if (self._blended or self.windows.in_place.ever) and not self._tensors.met_by(tensors):
            return None  # `_before` must not see anything else
        self._begin(tensors)
        outputs = repeat.run(tensors)
        if outputs is None:
            self.windows.state.turn.begun = False  # nothing was said
            return None
        code = repeat.code
        if code:
            self._finish(code, tensors)
            repeat.finished()
        else:
            self._done()
        return self._results(tensors, outputs)

    def _step_by_step(self, tensors: Tensors) -> Any:
        """With addresses that are filled in."""
        words = self._words
        outputs, kept = warm.take(self._sets)
        before = kept.rows
        if self._rows_before >= 0:
            words[self._rows_before] = before
            kept.rows = self.specs[0].shape[0]  # should the call fail
        words[self._first_output : self._first_output + len(outputs)] = kept.addresses
        if not self._takes_its_steps(tensors):
            kept.rows = before
            return None
        if self._rows_before >= 0:
            kept.rows = self._rows_written()
        return self._results(tensors, tuple(outputs))

    def _takes_its_steps(self, tensors: Tensors) -> bool:
        """From addresses to results. False when the call is illegal after all: then nothing was said."""
        self._begin(tensors)
        code = self._step(self._argument)
        if code == Code.INVALID:
            self.windows.state.turn.begun = False
            return False
        if code:
            self._finish(code, tensors)
        else:
            self._done()
        return True

    def _results(self, tensors: Tensors, outputs: tuple[Tensor, ...]) -> Any:
        info = tensors[self._performance_info]
        if info is not None:
            self._add_waiting(info)
        return outputs if self.op == "dispatch" else outputs[0]

    @cached_property
    def _sets(self) -> warm.Sets:
        return warm.sets_of(self.specs, self._filled_in_full)

    def _begin(self, tensors: Tensors) -> None:
        windows, area, words = self.windows, self.area, self._words
        windows.state.turn.begun = True
        if windows.owed:
            windows.what = self.what
            windows.settle(time.monotonic() + timeout_seconds())
        if self._blended or windows.in_place.ever:
            self._before(tensors)
        first: int = windows.barrier + 1
        words[_PHASE], words[_BARRIER] = _START, first
        words[_EARLY] = area.find_free(self.needed, first)
        words[_BASE] = area.base
        # Who measures waiting wants to look between the two barriers.
        words[_ROOM] = area.size >= self.needed and tensors[self._performance_info] is None

    def _done(self) -> None:
        self.windows.barrier = barrier = self._words[_BARRIER]
        self.area.was_read(barrier)
        self._waited_before: list[int] = []


_PHASE, _BARRIER, _EARLY, _ROOM, _BASE = (
    word_of(CallFields, name) for name in ("phase", "barrier", "early", "room", "base")
)
_START: Final = int(Phase.START)
