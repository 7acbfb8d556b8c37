"""One rank's view of its group: the barrier with its time limit, the statements, and the areas."""

from __future__ import annotations

import ctypes
import itertools
import logging
import mmap
import os
import select
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, NoReturn

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ascend_moe.contract.agreement import FIELDS
from ascend_moe.contract.errors import PeerError
from ascend_moe.cpu.exchange import REASON_BYTES, REFUSAL_S, Statement
from ascend_moe.cpu.peers import GroupState, failure
from ascend_moe.cpu.windows import memory
from ascend_moe.cpu.windows.control import Control
from ascend_moe.cpu.windows.engine import Native
from ascend_moe.cpu.windows.fields import GroupFields
from ascend_moe.patience import timeout_seconds

_log = logging.getLogger("ascend_moe")

SLICE_US: Final = 50_000
"""How long a rank sleeps at most before it looks whether a peer died."""

TWO_HALVES_UP_TO: Final = 8 << 20
"""Bytes of an area; a larger one has no second half, because both together would not stay in the caches."""

_CACHE_BYTES: Final = 32 << 20
"""Where the system does not say how large its shared cache is."""

_PART_FOR_ROWS: Final = 4
"""Rows of all ranks that need more than this part of the shared cache go around it when they are written: the areas,
what the rows are made from and what is made from them want to be there as well."""

GENERIC: Final = 0
FAST: Final = 1
"""Ways of a call: blocks of rows through `WindowExchange`, or the steps of dispatch and combine."""


class NoWindow(Exception):
    """An area cannot grow; all ranks of the group learn so at the same moment."""


class OwnRows(NamedTuple):
    """Shared memory of this rank."""

    address: int
    descriptor: int
    size: int


_numbers = itertools.count(1)
_FOREIGN_PER_RANK: Final = 8


def _drop(rows: dict[int, OwnRows], number: int) -> None:
    os.close(rows.pop(number).descriptor)


@dataclass
class Area:
    """Memory for one kind of traffic. All of it but the addresses changes in the same way on all ranks."""

    memory: memory.Shared | None = None
    size: int = 0
    """Of one half."""
    halves: int = 1
    last: int = 0
    """The half that was read last: as long as it is free it is used again, because it is warm."""
    turn: int = 0
    """The half that the call uses which is being made."""
    base: int = 0
    """Its address."""
    read_from: list[int] = field(default_factory=lambda: [0])
    """By half: the barrier after which its rows were read last."""

    def find_free(self, needed: int, barrier: int) -> bool:
        """Whether rows may be published before this rank arrives at ``barrier``; if need be, in the other half."""
        if self.size < needed:
            return False
        self.turn = self.last
        if barrier - 1 <= self.read_from[self.last] and self.halves > 1:
            self.turn = 1 - self.last
        assert self.memory is not None
        self.base = self.memory.address + self.turn * self.size
        return barrier - 1 > self.read_from[self.turn]

    def was_read(self, barrier: int) -> None:
        """Rows that were published for ``barrier`` have been read. A call that is refused does not come to this."""
        self.last = self.turn
        self.read_from[self.turn] = barrier


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
        self.what = ""
        """The call that is being made, for errors."""
        self.control = Control(control, self.ranks)
        self.fields = GroupFields(control.address, self.ranks, self.rank)
        self.address = ctypes.addressof(self.fields)
        self.native = native
        self.barrier = 0
        """The last barrier that this rank passed, or posted for (`owed`)."""
        self.areas = {name: Area() for name in ("dispatch", "combine", "exchange")}
        self.cache_bytes = _shared_cache() // _PART_FOR_ROWS
        self.owed: list[tuple[list[int], str]] = []
        """Refused calls whose barrier is not complete; the first one is posted."""
        self._posted = False
        self.own_rows: dict[int, OwnRows] = {}
        """Memory for expert outputs that peers can read in place, by number."""
        self.has_made_rows = False
        """Whether there ever was such memory."""
        self.foreign: dict[tuple[int, int], memory.Shared] = {}
        """The same of the peers, by rank and number, as far as it is mapped here."""
        self._pids = list(pids)
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
            self.control.left[self.rank] = _int32(self.barrier) or 1

    # --- statements -----------------------------------------------------------------------------------------------

    def meet(self, numbers: Sequence[int], sending: Sequence[int]) -> list[Statement]:
        """Everybody's statement, by rank; ``sending`` says how many rows this rank will send to each."""
        deadline = time.monotonic() + timeout_seconds()
        self.settle(deadline)
        self._post(numbers, "", sending)
        self.wait(self.barrier, deadline)
        return self.statements(self.barrier)

    def refuse(self, numbers: Sequence[int], reason: str) -> list[Statement] | None:
        """Tells the peers that this rank does not take part; their statements, if they come within `REFUSAL_S`."""
        self.owed.append((list(numbers), reason))
        deadline = time.monotonic() + min(REFUSAL_S, timeout_seconds())
        return self.statements(self.barrier) if self._settle(deadline) else None

    def settle(self, deadline: float) -> None:
        """Completes the barriers of calls that this rank refused before its peers came."""
        if self.owed and not self._settle(deadline):
            self.fail(self._missing(self.barrier), [])

    def _settle(self, deadline: float) -> bool:
        while self.owed:
            if not self._posted:
                self._post(*self.owed[0], [0] * self.ranks)
                self._posted = True
            while not self._wait_slice(self.barrier):
                gone = self._gone(self.barrier)
                if gone:
                    self.fail([], gone)
                if time.monotonic() > deadline:
                    return False
            self.owed.pop(0)
            self._posted = False
        return True

    def _post(self, numbers: Sequence[int], reason: str, sending: Sequence[int]) -> None:
        self.barrier += 1
        parity = self.barrier & 1
        own = self.control.statements[self.rank, parity]
        own["refused"] = bool(reason)
        own["way"], own["early"], own["rows_per_token"] = GENERIC, 0, 0
        own["numbers"][: len(numbers)] = numbers
        text = reason.encode("ascii", "replace")[:REASON_BYTES].ljust(REASON_BYTES, b"\0")
        own["reason"][:] = np.frombuffer(text, dtype=np.uint8)
        self.control.sending[parity, self.rank] = sending
        self.arrive(self.barrier)

    def statements(self, barrier: int) -> list[Statement]:
        """What was said for a barrier that is complete."""
        parity = barrier & 1
        found = []
        for rank in range(self.ranks):
            one = self.control.statements[rank, parity]
            text = one["reason"].tobytes().rstrip(b"\0").decode("ascii", "replace")
            rows = int(self.control.sending[parity, rank, self.rank])
            refusal = text if one["refused"] else ""
            numbers = one["numbers"][: len(FIELDS)].tolist()
            found.append(Statement(numbers, rows, refusal, int(one["way"])))
        return found

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

    def look_after_peers(self, barrier: int, deadline: float) -> None:
        """Raises PeerError when a rank that ``barrier`` waits for is gone, or time is over."""
        gone = self._gone(barrier)
        if gone:
            self.fail([], gone)
        if time.monotonic() > deadline:
            self.fail(self._missing(barrier), [])

    def fail(self, late: Sequence[int], gone: Sequence[int]) -> NoReturn:
        """Gives the group up, and tells which ranks are the reason."""
        self.leave(failure(self._group(), late, gone, timeout_seconds()))
        raise PeerError(f"{self.what}: {self.state.broken}", sorted({*late, *gone}))

    def reject_rows_of(self, rank: int) -> NoReturn:
        """Gives the group up: what ``rank`` wrote into shared memory would lead astray."""
        self.leave(f"rank {rank} published rows that cannot be")
        raise PeerError(f"{self.what}: {self.state.broken}", [rank])

    def leave(self, reason: str) -> None:
        """Nothing more can be done with this group: neither here nor, once they notice, on the peers."""
        self.state.broken = reason
        self.state.calls.clear()
        self.control.left[self.rank] = _int32(self.barrier) or 1

    def gave_up(self, barrier: int) -> list[int]:
        """Ranks that arrived at ``barrier`` and then left it."""
        left = self.control.left.tolist()
        return [r for r, at in enumerate(left) if at and _int32(barrier - at) >= 0]

    def _wait_slice(self, barrier: int) -> bool:
        return bool(self.native.wait(self.address, _int32(barrier), SLICE_US))

    def _missing(self, barrier: int) -> list[int]:
        return [
            rank
            for rank, flag in enumerate(self.control.flags.tolist())
            if _int32(flag - barrier) < 0
        ]

    def _gone(self, barrier: int) -> list[int]:
        """Ranks that will never arrive: dead, or gave up at an earlier barrier."""
        dead = {self._watched[descriptor] for descriptor, _ in self._poll.poll(0)}
        missing = self._missing(barrier)
        return [rank for rank in missing if rank in dead or self.control.left[rank]]

    # --- expert outputs in shared memory ---------------------------------------------------------------------------

    def rows_in_place(self, size: int) -> Tensor:
        """New shared memory, uint8, that combine reads where it is. Raises OSError when it cannot be had."""
        descriptor = memory.create(max(size, 1))
        mapping = mmap.mmap(descriptor, max(size, 1))
        found = torch.frombuffer(mapping, dtype=torch.uint8)
        number = next(_numbers)
        self.has_made_rows = True
        self.own_rows[number] = OwnRows(found.data_ptr(), descriptor, max(size, 1))
        weakref.finalize(mapping, _drop, self.own_rows, number).atexit = False
        return found[:size]

    def shared_rows(self, address: int, size: int) -> tuple[int, int, int, int]:
        """Number, descriptor, offset and size of the memory that holds these bytes; zeros: it is not shared."""
        for number, own in self.own_rows.items():
            if own.address <= address and address + size <= own.address + own.size:
                return number, own.descriptor, address - own.address, own.size
        return 0, 0, 0, 0

    def map_rows(self, rank: int, number: int, descriptor: int, size: int) -> int:
        """The address here of a peer's memory; older ones of that rank are given back when there are many."""
        found = self.foreign.get((rank, number))
        if found is None:
            older = [key for key in self.foreign if key[0] == rank]
            if len(older) >= _FOREIGN_PER_RANK:
                del self.foreign[older[0]]
            found = memory.map_of_process(self._pids[rank], descriptor, size)
            self.foreign[rank, number] = found
        return found.address

    # --- areas ----------------------------------------------------------------------------------------------------

    def make_room(self, area: Area, needed: int, deadline: float) -> None:
        """Gives ``area`` at least so many bytes per half; all ranks call this with the same number.

        Raises NoWindow, on all ranks, when one of them cannot.
        """
        half = -(-(needed + needed // 4) // memory.PAGE) * memory.PAGE
        halves = 2 if half <= TWO_HALVES_UP_TO else 1
        descriptor = -1
        if self.rank == 0:
            offer = [os.getpid(), -1, half * halves, 0]
            try:
                descriptor = offer[1] = memory.create(half * halves)
            except OSError as error:
                offer[3] = error.errno or -1
            self.control.head[0]["offer"][:4] = offer
        try:
            self.next_barrier(deadline)
            pid, offered, size, error_number = self.control.head[0]["offer"][:4].tolist()
            mapped, reason = None, os.strerror(error_number)
            if not error_number:
                try:
                    mapped = memory.map_of_process(pid, offered, size)
                except OSError as error:
                    reason = str(error)
            self.control.mapped[self.rank] = 1 if mapped else 2
            self.next_barrier(deadline)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        cannot = [rank for rank, word in enumerate(self.control.mapped.tolist()) if word != 1]
        if cannot or mapped is None:
            what = f": {reason}" if mapped is None else ""
            text = f"no {half * halves >> 10} KiB of shared memory on ranks {cannot}{what}"
            _log.warning("group %s goes over to torch.distributed: %s", self._name(), text)
            self.state.windows = None
            self.state.calls.clear()
            raise NoWindow(text)
        area.memory, area.size, area.halves = mapped, half, halves
        area.last = area.turn = 0
        area.base = mapped.address
        area.read_from = [0] * halves

    def _name(self) -> str:
        group = self._group()
        return repr(group.group_name) if group is not None else "?"

    def next_barrier(self, deadline: float) -> None:
        """One barrier that says nothing but that all ranks are here."""
        self.barrier += 1
        self.arrive(self.barrier)
        self.wait(self.barrier, deadline)


def _shared_cache() -> int:
    """Bytes of the cache that the cores share."""
    try:
        return max(os.sysconf("SC_LEVEL3_CACHE_SIZE"), 0) or _CACHE_BYTES
    except (OSError, ValueError):
        return _CACHE_BYTES


def _int32(number: int) -> int:
    """As the words in shared memory count: they wrap around."""
    return (number + (1 << 31)) % (1 << 32) - (1 << 31)
