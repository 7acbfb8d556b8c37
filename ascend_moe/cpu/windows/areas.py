"""Areas: the group's memory for one kind of traffic, when a rank may write there, and how it grows.

All ranks map the same memory and none owns it: it goes with the last of them. `Area` decides without asking anybody,
because everything it goes by changes in the same way on all ranks.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ascend_moe.contract.errors import PeerError
from ascend_moe.cpu.distributed.group import Survivors
from ascend_moe.cpu.windows import memory

if TYPE_CHECKING:
    from ascend_moe.cpu.windows.group import Windows

_log = logging.getLogger("ascend_moe")

TWO_HALVES_UP_TO: Final = 8 << 20
"""Bytes of an area; a larger one has no second half, because both together would not stay in the caches."""

_CACHE_BYTES: Final = 32 << 20
"""Where the system does not say how large its shared cache is."""

_PART_FOR_ROWS: Final = 4
"""Rows of all ranks that need more than this part of the shared cache go around it when they are written: the areas,
what the rows are made from and what is made from them want to be there as well."""


class NoWindow(Exception):
    """An area cannot grow; all ranks of the group learn so at the same moment."""


@dataclass
class Area:
    """Memory for one kind of traffic, as one rank sees it."""

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


def make_room(windows: Windows, area: Area, needed: int, deadline: float) -> None:
    """Gives ``area`` at least so many bytes per half; all ranks call this with the same number.

    Raises NoWindow, on all ranks, when one of them cannot.
    """
    half = -(-(needed + needed // 4) // memory.PAGE) * memory.PAGE
    halves = 2 if half <= TWO_HALVES_UP_TO else 1
    descriptor, reason = -1, ""
    if windows.rank == 0:
        offer = [os.getpid(), -1, half * halves, 0]
        try:
            descriptor = offer[1] = memory.create(half * halves)
        except OSError as error:
            offer[3], reason = error.errno or -1, str(error)
        windows.control.head[0]["offer"][:4] = offer
    try:
        windows.next_barrier(deadline)
        pid, offered, size, error_number = windows.control.head[0]["offer"][:4].tolist()
        mapped, reason = None, reason or os.strerror(error_number)
        if not error_number:
            try:
                mapped = memory.map_of_process(pid, offered, size)
            except OSError as error:
                reason = str(error)
        windows.control.mapped[windows.rank] = 1 if mapped else 2
        windows.next_barrier(deadline)
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    cannot = [rank for rank, word in enumerate(windows.control.mapped.tolist()) if word != 1]
    if cannot or mapped is None:
        what = f": {reason}" if mapped is None else ""
        named = windows.state.named(cannot)
        text = f"no {half * halves >> 10} KiB of shared memory on ranks {named}{what}"
        if isinstance(windows.state.group(), Survivors):  # there is no other way
            windows.state.give_up(text)
            raise PeerError(f"{windows.what}: {text}", named)
        _log.warning("group %s goes over to torch.distributed: %s", windows.name(), text)
        windows.state.windows = None
        windows.state.calls.clear()
        raise NoWindow(text)
    area.memory, area.size, area.halves = mapped, half, halves
    area.last = area.turn = 0
    area.base = mapped.address
    area.read_from = [0] * halves


def bytes_for_rows() -> int:
    """What the rows of all ranks may take of the cache that the cores share."""
    try:
        shared = max(os.sysconf("SC_LEVEL3_CACHE_SIZE"), 0) or _CACHE_BYTES
    except (OSError, ValueError):
        shared = _CACHE_BYTES
    return shared // _PART_FOR_ROWS
