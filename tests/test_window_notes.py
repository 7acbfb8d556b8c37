"""Notes in the windows of a group on NPUs, and the roll that its ranks call: without a device, the library played."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ascend_moe.cpu.survivors.boards import CALLS, DIFFERS, HERE, LEFT, Note
from ascend_moe.cpu.survivors.meeting import Meeting
from ascend_moe.npu import notes
from ascend_moe.npu.notes import WindowNotes

RANKS, WORDS, TAG = 40, 8, 0xDEADBEEF


class Windows:
    """Of all ranks, in one process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.notes = np.zeros((RANKS, RANKS, WORDS), np.uint32)  # by reader and writer
        self.dead: set[int] = set()
        monkeypatch.setattr(notes, "tell", self._tell)
        monkeypatch.setattr(notes, "hear", self._hear)

    def board(self, rank: int) -> WindowNotes:
        group: Any = SimpleNamespace(rank=rank, ranks=RANKS, note_words=WORDS, note_tag=TAG)
        return WindowNotes(str(rank), group)

    def _tell(self, name: str, note: Any, to: Any, ranks: int) -> None:
        for reader in to:
            self.notes[reader, int(name)] = note

    def _hear(self, name: str, ranks: int, words: int) -> Any:
        return self.notes[int(name)].copy(), set(self.dead)


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Windows:
    return Windows(monkeypatch)


def test_a_note_arrives_as_it_was_written(windows: Windows):
    note = Note(7, HERE, frozenset([0, 31, 32, 39]), (2**32 - 1, 0))
    windows.board(3).post(note)
    assert windows.board(5).read() == {3: note}
    assert windows.board(3).read() == {}  # its own is none


@pytest.mark.parametrize(
    "word", [0, 1, 2, 4, 6], ids=["tag", "checksum", "attempt", "offer", "who"]
)
def test_what_is_half_written_or_of_another_group_is_none(windows: Windows, word: int):
    windows.board(3).post(Note(7, HERE, frozenset([1])))
    windows.notes[5, 3, word] ^= 1 << 20
    assert windows.board(5).read() == {}


def test_who_is_gone_is_neither_told_nor_heard(windows: Windows):
    board = windows.board(3)
    windows.board(5).post(Note(1, DIFFERS, frozenset([3])))
    assert board.read()
    board.reached -= {5}
    board.post(Note(1, HERE, frozenset([5])))
    assert board.read() == {}
    assert windows.board(5).read() == {}
    assert windows.board(6).read()


def test_a_roll_call_finds_who_is_missing(windows: Windows):
    """Who calls too or meets already is there; a note of before the last agreement says nothing."""
    before = frozenset([0, 1])
    windows.board(2).post(Note(9, LEFT, before))  # has agreed, and has not been heard of since
    windows.board(3).post(Note(9, CALLS, frozenset([0])))  # an earlier roll
    for rank in range(4, RANKS - 1):
        stage, more = ((CALLS, ()), (HERE, ()), (LEFT, (3,)))[rank % 3]
        windows.board(rank).post(Note(1, stage, before.union(more)))
    own = Meeting(windows.board(RANKS - 1))
    assert own.call_the_roll(before, time.monotonic() + 0.05) == {0, 1, 2, 3}
    windows.dead = {2, 3}
    began = time.monotonic()
    assert own.call_the_roll(before, began + 60) == {0, 1, 2, 3}
    assert windows.board(5).read()[RANKS - 1] == Note(2, CALLS, before)


def test_callers_find_each_other_and_agree(windows: Windows):
    left, found = [1, 2, 4], {}
    windows.dead = {*range(RANKS)}.difference(left)

    def survive(rank: int) -> None:
        meeting = Meeting(windows.board(rank))
        deadline = time.monotonic() + 30
        time.sleep(rank / 50)
        gone = meeting.call_the_roll((), deadline)
        meeting.agree(gone, deadline, what="here", names=range(RANKS))
        found[rank] = gone

    threads = [threading.Thread(target=survive, args=(rank,)) for rank in left]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(left, windows.dead)
