"""One rank's view of its group: the statements, and the barrier with its time limit."""

from __future__ import annotations

import ctypes
import os
import select
import time
import weakref
from collections.abc import Sequence
from typing import Final, NoReturn

import torch.distributed as dist

from ascend_moe.cpu.distributed.exchange import REFUSAL_S
from ascend_moe.cpu.distributed.peers import GroupState
from ascend_moe.cpu.distributed.whereabouts import WORD_S, Word, follow
from ascend_moe.cpu.operators.statements import Statement, read, write
from ascend_moe.cpu.windows import memory
from ascend_moe.cpu.windows.areas import Area, bytes_for_rows
from ascend_moe.cpu.windows.control import Control
from ascend_moe.cpu.windows.engine import Native
from ascend_moe.cpu.windows.fields import GroupFields
from ascend_moe.cpu.windows.rows_in_place import RowsInPlace
from ascend_moe.patience import patience

SLICE_US: Final = 50_000
"""How long a rank sleeps at most before it looks whether a peer died."""

FAST: Final = 1
"""The way of a call with steps of its own; 0: those that all modes share."""


class Windows:
    """The shared memory of one group, as one rank sees it."""

    def __init__(
        self,
        group: dist.ProcessGroup,
        state: GroupState,
        control: memory.Shared,
        pids: Sequence[int],
        native: Native,
    ) -> None:
        """pids: the processes of all ranks. Raises OSError when they cannot be watched."""
        self.rank, self.ranks = group.rank(), group.size()
        self._group = weakref.ref(group)
        self.state = state
        self.speaks = True
        """Whether this process is the rank, and not a child that it forked."""
        self.what = ""
        """The call that is being made, for errors."""
        self.control = Control(control, self.ranks)
        self.fields = GroupFields(control.address, self.ranks, self.rank)
        self.address = ctypes.addressof(self.fields)
        self.native = native
        self.barrier = 0
        """The last barrier that this rank passed, or posted for (`owed`)."""
        self.areas = {name: Area() for name in ("dispatch", "combine", "exchange")}
        self.cache_bytes = bytes_for_rows()
        self.owed: list[tuple[list[int], str]] = []
        """Refused calls whose barrier is not complete; the first one is posted."""
        self._posted = False
        self.pids = list(pids)
        self.in_place = RowsInPlace(self.pids)
        self._watched: dict[int, int] = {}
        self._poll = select.poll()
        for rank, pid in enumerate(pids):
            if rank != self.rank:
                descriptor = os.pidfd_open(pid)
                self._watched[descriptor] = rank
                self._poll.register(descriptor, select.POLLIN)

    def __del__(self) -> None:
        for descriptor in getattr(self, "_watched", ()):
            os.close(descriptor)
        if hasattr(self, "_posted"):
            self.leave((), [self.rank])

    # --- statements -----------------------------------------------------------------------------------------------

    def meet(self, numbers: Sequence[int], sending: Sequence[int]) -> list[Statement]:
        """Everybody's statement, by rank; ``sending`` says how many rows this rank will send to each."""
        deadline = time.monotonic() + patience()
        self.settle(deadline)
        self._post(numbers, "", sending)
        self.wait(self.barrier, deadline)
        return self.statements(self.barrier)

    def refuse(self, numbers: Sequence[int], reason: str) -> list[Statement] | None:
        """Tells the peers that this rank does not take part; their statements, if they come within `REFUSAL_S`."""
        self.owed.append((list(numbers), reason))
        deadline = time.monotonic() + min(REFUSAL_S, patience())
        return self.statements(self.barrier) if self._settle(deadline) else None

    def settle(self, deadline: float) -> None:
        """Completes the barriers of calls that this rank refused before its peers came."""
        if self.owed and not self._settle(deadline):
            self.state.fail(self.what, late=self._missing(self.barrier))

    def _settle(self, deadline: float) -> bool:
        while self.owed:
            if not self._posted:
                self._post(*self.owed[0], [0] * self.ranks)
                self._posted = True
            while not self._wait_slice(self.barrier):
                self._require_peers(self.barrier)
                if time.monotonic() > deadline:
                    return False
            self.owed.pop(0)
            self._posted = False
        return True

    def _post(self, numbers: Sequence[int], reason: str, sending: Sequence[int]) -> None:
        self.state.turn.begun = True
        self.barrier += 1
        parity = self.barrier & 1
        own = self.control.statements[self.rank, parity]
        write(own, numbers, reason)
        self.control.sending[parity, self.rank] = sending
        self.arrive(self.barrier)

    def statements(self, barrier: int) -> list[Statement]:
        """What was said for a barrier that is complete."""
        parity = barrier & 1
        rows = self.control.sending[parity, :, self.rank]
        return list(map(read, self.control.statements[:, parity], rows))

    def microseconds_waited(self, barrier: int) -> list[int]:
        """For each rank: how long this one did nothing but wait for it at ``barrier``, looking at them in order."""
        arrived = self.control.arrived_ns[:, barrier & 1].tolist()
        moment, waited = arrived[self.rank], []
        for other in arrived:
            waited.append(max(other - moment, 0) // 1000)
            moment = max(moment, other)
        return waited

    # --- the barrier ----------------------------------------------------------------------------------------------

    def arrive(self, barrier: int) -> None:
        """Says that this rank has written all that ``barrier`` publishes."""
        self.native.arrive(self.address, _int32(barrier))

    def wait(self, barrier: int, deadline: float) -> None:
        """Until all ranks have arrived. Raises PeerError, naming who died or is late."""
        while not self._wait_slice(barrier):
            self.look_after_peers(barrier, deadline)

    def next_barrier(self, deadline: float) -> None:
        """One barrier that says nothing but that all ranks are here."""
        self.barrier += 1
        self.arrive(self.barrier)
        self.wait(self.barrier, deadline)

    def look_after_peers(self, barrier: int, deadline: float) -> None:
        """Raises PeerError when a rank that ``barrier`` waits for is gone, or time is over."""
        self._require_peers(barrier)
        if time.monotonic() > deadline:
            late = self._missing(barrier)
            if len(late) > 1:  # who waits for another gives up at about this time
                time.sleep(WORD_S)
                self._require_peers(barrier)
                late = self._missing(barrier)
            if late:
                self.state.fail(self.what, late=late)

    def reject_rows_of(self, rank: int) -> NoReturn:
        """Gives the group up: what ``rank`` wrote into shared memory would lead astray."""
        self.state.reject(self.what, rank)

    def leave(self, late: Sequence[int], gone: Sequence[int]) -> None:
        """Tells the peers that this rank gave up, and because of whom."""
        if self.speaks:
            blamed = -1 - late[0] if late else 1 + gone[0] if gone else 0
            self.control.blamed[self.rank] = blamed
            arrived = int(self.control.flags[self.rank])
            behind = _int32(self.barrier - arrived) < 0
            self.control.left[self.rank] = (arrived if behind else _int32(self.barrier)) or 1

    def require_together(self, barrier: int) -> None:
        """Raises PeerError when a rank arrived at ``barrier`` and then left it."""
        left = self.control.left.tolist()
        self._blame([r for r, at in enumerate(left) if at and _int32(barrier - at) >= 0], [])

    def _require_peers(self, barrier: int) -> None:
        """Raises PeerError when a rank will never arrive: dead, or gave up at an earlier barrier."""
        # Before the dead: who left may have done so because of them.
        left = self.control.left.tolist()
        dead = self.dead()
        missing = self._missing(barrier)
        self._blame([r for r in missing if left[r]], [r for r in missing if r in dead])

    def dead(self) -> set[int]:
        """Ranks whose processes have ended."""
        return {self._watched[descriptor] for descriptor, _ in self._poll.poll(0)}

    def _blame(self, left: Sequence[int], dead: Sequence[int]) -> None:
        """Who left because of another is not the reason."""
        if left or dead:
            blamed = enumerate(self.control.blamed.tolist())
            words = {
                rank: _word(one) for rank, one in blamed if abs(one) in range(1, self.ranks + 1)
            }
            words[self.rank] = (self._missing(self.barrier), ())
            late, gone = follow(self.rank, ((), [*left, *dead]), words)
            self.state.fail(self.what, late=late, gone=gone)

    def _wait_slice(self, barrier: int) -> bool:
        return bool(self.native.wait(self.address, _int32(barrier), SLICE_US))

    def _missing(self, barrier: int) -> list[int]:
        return [
            rank
            for rank, flag in enumerate(self.control.flags.tolist())
            if _int32(flag - barrier) < 0
        ]

    def name(self) -> str:
        """Of the group, for messages."""
        group = self._group()
        return repr(group.group_name) if group is not None else "?"


def _word(blamed: int) -> Word:
    """What `Windows.leave` says."""
    return ([-1 - blamed], ()) if blamed < 0 else ((), [blamed - 1])


def _int32(number: int) -> int:
    """As the words in shared memory count: they wrap around."""
    return (number + (1 << 31)) % (1 << 32) - (1 << 31)
