"""What the native steps leave to Python: peers that are late, statements that differ, areas that are too small."""

from __future__ import annotations

import time
from typing import NoReturn

import torch
from torch import Tensor

from ascend_moe.contract.buffsize import CPU
from ascend_moe.contract.check import constraint_error
from ascend_moe.contract.errors import Violation
from ascend_moe.cpu.operators.statements import found_in
from ascend_moe.cpu.windows.areas import make_room
from ascend_moe.cpu.windows.fields import Code, Phase
from ascend_moe.cpu.windows.repeated.prepared import Prepared
from ascend_moe.cpu.windows.repeated.tensors import Tensors
from ascend_moe.patience import timeout_seconds


class Surprises(Prepared):
    """A call whose step returned before it was done."""

    _waited_before: list[int]
    """Microseconds for each rank at a barrier before the last one."""

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
                    make_room(windows, area, self.needed, deadline)
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
        windows.require_together(fields.barrier)
        found = found_in(
            windows.statements(fields.barrier), "ep_rank_id", names=windows.state.names
        )
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
        raise constraint_error(
            self.op,
            call,
            found,
            self.product,
            self.contract,
            values=True,
            implementation=CPU,
        )

    def _add_waiting(self, info: Tensor) -> None:
        """How long this rank waited for each rank, in place (see `session.Session.finish`)."""
        info += torch.tensor(self.windows.microseconds_waited(self.windows.barrier))
        if self._waited_before:
            info += torch.tensor(self._waited_before)
