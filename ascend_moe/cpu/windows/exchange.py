"""Blocks of rows through shared memory: what `distributed.exchange.Exchange` does with messages, for all modes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch.distributed as dist
from torch import Tensor

from ascend_moe.cpu.distributed.exchange import Exchange
from ascend_moe.cpu.distributed.peers import require_usable
from ascend_moe.cpu.operators.statements import Statement
from ascend_moe.cpu.windows.areas import NoWindow, make_room
from ascend_moe.cpu.windows.group import Windows
from ascend_moe.patience import patience

_CACHE_LINE = 64


class WindowExchange:
    """One call's exchange with the peers of a group. The interface is that of `Exchange`."""

    def __init__(self, group: dist.ProcessGroup, windows: Windows, *, what: str) -> None:
        """what: names the call in errors, for example ``npu_moe_distribute_dispatch_v2 on rank 3``."""
        self._group, self._windows, self._what = group, windows, what
        windows.what = what
        require_usable(windows.state, what)
        self.waited = [0] * windows.ranks
        """Microseconds for which this rank did nothing but wait for each rank."""
        self._deadline = time.monotonic() + patience()
        self._most_rows = 0

    def statements(self, numbers: Sequence[int], rows: Sequence[int]) -> list[Statement]:
        """Posts this rank's statement and returns everybody's, by rank.

        rows: how many rows this rank will send to each rank.
        """
        windows = self._windows
        found = windows.meet(numbers, rows)
        self._note_waiting()
        windows.require_together(windows.barrier)
        self._most_rows = int(windows.control.sending[windows.barrier & 1].sum(axis=1).max())
        return found

    def refuse(self, numbers: Sequence[int], reason: str) -> list[Statement] | None:
        """Tells every peer that this rank does not take part; their statements if they come soon."""
        return self._windows.refuse(numbers, reason)

    def rows(
        self, outgoing: Tensor, send_counts: Sequence[int], receive_counts: Sequence[int]
    ) -> Tensor:
        """Moves rows: ``outgoing`` (n, pitch) uint8 grouped by destination, returns (m, pitch) grouped by source.

        A rank's share of the area is a table of where each receiver's rows begin, then the rows. The shares are as
        large as the largest, by the statements.
        """
        windows, area = self._windows, self._windows.areas["exchange"]
        own, ranks, pitch = windows.rank, windows.ranks, outgoing.shape[1]
        head = -(-(ranks + 1) * 8 // _CACHE_LINE) * _CACHE_LINE
        share = head + -(-self._most_rows * pitch // _CACHE_LINE) * _CACHE_LINE
        if not area.find_free(ranks * share, windows.barrier + 1):
            try:
                make_room(windows, area, ranks * share, self._deadline)
            except NoWindow:  # this call's statements hold; only its rows take the other way
                line = Exchange(self._group, what=self._what)
                return line.rows(outgoing, send_counts, receive_counts)
        assert area.memory is not None
        start = area.base - area.memory.address
        shares = area.memory.bytes[start : start + ranks * share].view(ranks, share)
        begins = shares[own, :head].numpy().view(np.int64)
        begins[0], begins[1 : ranks + 1] = 0, np.cumsum(send_counts)
        shares[own, head : head + outgoing.numel()].copy_(outgoing.reshape(-1))
        windows.barrier += 1
        windows.arrive(windows.barrier)
        windows.wait(windows.barrier, self._deadline)
        self._note_waiting()
        incoming = outgoing.new_empty(sum(receive_counts), pitch)
        done = 0
        for source, count in enumerate(receive_counts):
            begin = int(shares[source, :head].numpy().view(np.int64)[own])
            if begin < 0 or head + (begin + count) * pitch > share:
                windows.reject_rows_of(source)
            rows = shares[source, head + begin * pitch : head + (begin + count) * pitch]
            incoming[done : done + count].copy_(rows.view(count, pitch))
            done += count
        area.was_read(windows.barrier)
        return incoming

    def _note_waiting(self) -> None:
        more = self._windows.microseconds_waited(self._windows.barrier)
        self.waited = [total + one for total, one in zip(self.waited, more, strict=True)]
