"""Expert outputs that combine reads where they are: memory that a rank's caller owns and its peers map to read.

It is given back when the caller's last tensor is gone; what peers have mapped of it stays readable until they need the
room, or the group goes.
"""

from __future__ import annotations

import itertools
import mmap
import os
import weakref
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from ascend_moe.cpu.windows import memory

_PER_PEER: Final = 8
"""Mappings of one peer's memory that are kept."""
_numbers = itertools.count(1)


class _Own(NamedTuple):
    address: int
    descriptor: int
    size: int


class RowsInPlace:
    """Of one group, on one rank."""

    def __init__(self, pids: Sequence[int]) -> None:
        """pids: the processes of all ranks."""
        self._pids = pids
        self.own: dict[int, _Own] = {}
        """What this rank's caller has, by number."""
        self.ever = False
        """Whether there ever was such memory."""
        self._mapped: dict[tuple[int, int], memory.Shared] = {}
        """What peers have, by rank and number, as far as it is mapped here."""

    def new(self, size: int) -> Tensor:
        """New memory, uint8. Raises OSError when it cannot be had."""
        descriptor = memory.create(max(size, 1))
        mapping = mmap.mmap(descriptor, max(size, 1))
        with torch.inference_mode(False):
            found = torch.frombuffer(mapping, dtype=torch.uint8)
        number = next(_numbers)
        self.ever = True
        self.own[number] = _Own(found.data_ptr(), descriptor, max(size, 1))
        weakref.finalize(mapping, _drop, self.own, number).atexit = False
        return found[:size]

    def find(self, address: int, size: int) -> tuple[int, int, int, int]:
        """Number, descriptor, offset and size of the memory that holds these bytes; zeros: it is not shared."""
        for number, own in self.own.items():
            if own.address <= address and address + size <= own.address + own.size:
                return number, own.descriptor, address - own.address, own.size
        return 0, 0, 0, 0

    def map(self, rank: int, number: int, descriptor: int, size: int) -> memory.Shared:
        """A peer's memory here; older ones of that rank are given back when there are many."""
        found = self._mapped.get((rank, number))
        if found is None:
            older = [key for key in self._mapped if key[0] == rank]
            if len(older) >= _PER_PEER:
                del self._mapped[older[0]]
            found = memory.map_of_process(self._pids[rank], descriptor, size)
            self._mapped[rank, number] = found
        return found


def _drop(rows: dict[int, _Own], number: int) -> None:
    os.close(rows.pop(number).descriptor)
