"""Notes in the windows of a group: a board for `ascend_moe.cpu.survivors.meeting`.

A note is words of 32 bits, at the place of its rank in the window of every rank that may want it:

    0       tag of the group: what lies there from an earlier one is no note
    1       checksum of the rest: a copy may be half done
    2, 3    attempt, stage
    4       the nonce that the first rank offers for the fresh context; 0: none
    5 ..    by rank: whether it is gone, a bit each
"""

from __future__ import annotations

import zlib
from typing import Any, Final

import numpy as np

from ascend_moe.cpu.survivors.boards import Note
from ascend_moe.npu.library import Members, hear, tell

_TAG, _CHECKSUM, _ATTEMPT, _STAGE, _OFFER, _HEAD_WORDS = range(6)
_BODY: Final = _ATTEMPT


class WindowNotes:
    """The notes of one group, in the numbers of the whole group."""

    pause_s = 0.002

    def __init__(self, name: str, group: Members) -> None:
        self._name, self._tag, self._words = name, group.note_tag, group.note_words
        self.own, self.ranks = group.rank, group.ranks
        self.reached = {*range(group.ranks)} - {group.rank}
        """Who is told and heard: ranks that were not gone when the context was made.

        What others have left in the windows says nothing any more: unlike on CPU, it is the same memory.
        """

    def post(self, note: Note) -> None:
        words = np.zeros(self._words, np.uint32)
        words[_TAG] = self._tag
        words[_ATTEMPT], words[_STAGE], words[_OFFER] = note.attempt, note.stage, note.offer[0]
        gone = np.isin(np.arange(self.ranks), [*note.gone])
        packed = np.packbits(gone, bitorder="little")
        words[_HEAD_WORDS:].view(np.uint8)[: len(packed)] = packed
        words[_CHECKSUM] = _checksum(words)
        tell(self._name, words, self.reached, self.ranks)

    def read(self) -> dict[int, Note]:
        return self._look()[0]

    def dead(self) -> set[int]:
        """On an NPU nobody tells."""
        return self._look()[1]

    def _look(self) -> tuple[dict[int, Note], set[int]]:
        notes, dead = hear(self._name, self.ranks, self._words)
        found = {}
        for rank in self.reached:
            words = notes[rank]
            if words[_TAG] != self._tag or words[_CHECKSUM] != _checksum(words):
                continue
            bits = np.unpackbits(words[_HEAD_WORDS:].view(np.uint8), bitorder="little")
            gone = frozenset(np.flatnonzero(bits[: self.ranks]).tolist())
            offer = int(words[_OFFER]), 0
            found[rank] = Note(int(words[_ATTEMPT]), int(words[_STAGE]), gone, offer)
        return found, dead


def _checksum(words: Any) -> int:
    return zlib.crc32(words[_BODY:].tobytes())
