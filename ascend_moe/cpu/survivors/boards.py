"""Where the ranks of a group leave notes for each other: in shared memory, or in the rendezvous store."""

from __future__ import annotations

import json
import zlib
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

from ascend_moe.cpu.distributed.whereabouts import _within as within
from ascend_moe.cpu.windows.control import NOTE_HEAD
from ascend_moe.cpu.windows.group import Windows

NOTHING, HERE, LEFT, DIFFERS, CALLS = range(5)
"""Stages of a note: none is there; its rank waits for the others; it gave up; it did so over another view; it has no
view of who is gone, and calls the roll."""
_ANSWER_S: Final = 1.0
"""How long the store may take to answer."""


class Note(NamedTuple):
    """What a rank says: who is gone in its view (ranks of the group), and what it offers."""

    attempt: int
    stage: int
    gone: frozenset[int]
    offer: tuple[int, int] = (0, 0)
    """Of the first rank that is left: its process and a descriptor, or -1 and an error number; zeros: nothing yet."""


class Board(Protocol):
    """The notes of one group."""

    own: int
    ranks: int
    pause_s: float
    """Between two looks."""

    def post(self, note: Note) -> None:
        """Replaces this rank's note."""

    def read(self) -> dict[int, Note]:
        """The notes of the other ranks."""

    def dead(self) -> set[int]:
        """Ranks whose processes are known to have ended."""


class SharedMemory:
    """Notes in the control memory of the group. Each is written by its own rank alone."""

    pause_s = 0.001

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self.own, self.ranks = windows.rank, windows.ranks

    def post(self, note: Note) -> None:
        record = self._windows.control.notes[self.own]
        head = record[: NOTE_HEAD.itemsize].view(NOTE_HEAD)[0]
        head["digest"] = 0
        head["attempt"], head["stage"], head["offer"] = note.attempt, note.stage, note.offer
        record[NOTE_HEAD.itemsize :][: self.ranks] = [
            rank in note.gone for rank in range(self.ranks)
        ]
        head["digest"] = _digest(record)

    def read(self) -> dict[int, Note]:
        found = {}
        for rank in range(self.ranks):
            record = self._windows.control.notes[rank].copy()
            head = record[: NOTE_HEAD.itemsize].view(NOTE_HEAD)[0]
            # Nothing orders another rank's stores but this: a note counts when all of it is here.
            if rank == self.own or not head["stage"] or head["digest"] != _digest(record):
                continue
            gone = np.flatnonzero(record[NOTE_HEAD.itemsize :][: self.ranks]).tolist()
            first, second = head["offer"].tolist()
            stage = int(head["stage"])
            found[rank] = Note(int(head["attempt"]), stage, frozenset(gone), (first, second))
        return found

    def dead(self) -> set[int]:
        return self._windows.dead()


def _digest(record: Any) -> int:
    return zlib.crc32(record[8:].tobytes()) + 1


class Store:
    """Notes in the rendezvous store of the group."""

    pause_s = 0.02

    def __init__(self, group: dist.ProcessGroup) -> None:
        lookup: Any = c10d
        self._store = lookup._world.pg_map[group][1]
        self.own, self.ranks = group.rank(), group.size()

    def post(self, note: Note) -> None:
        text = json.dumps([note.attempt, note.stage, sorted(note.gone), note.offer])
        self._ask(lambda: self._store.set(_key(self.own), text) or True)

    def read(self) -> dict[int, Note]:
        others = [rank for rank in range(self.ranks) if rank != self.own]

        def look() -> dict[int, Any]:
            there = [rank for rank in others if self._store.check([_key(rank)])]
            return {rank: json.loads(self._store.get(_key(rank))) for rank in there}

        return {
            rank: Note(attempt, stage, frozenset(gone), tuple(offer))
            for rank, (attempt, stage, gone, offer) in self._ask(look).items()
        }

    def dead(self) -> set[int]:
        return set()

    def _ask(self, look: Any) -> Any:
        found = within(_ANSWER_S, look)
        if found is None:
            raise RuntimeError(
                "the rendezvous store does not answer, whose process perhaps died: over torch.distributed ranks cannot "
                "meet without it (on one host they can, through shared memory: docs/elastic.md)"
            )
        return found


def _key(rank: int) -> str:
    return f"ascend_moe/shrink/{rank}"
