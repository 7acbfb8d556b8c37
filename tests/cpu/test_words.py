"""Who is named, by the words of ranks that gave up: those at their end, not those that gave up because of them."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist

from ascend_moe.cpu.distributed import whereabouts
from ascend_moe.cpu.distributed.whereabouts import follow, leave_word, who_is_the_reason, words_left

OWN, A, B, STOPPED = range(4)
LATE = ([STOPPED], [])


@pytest.mark.parametrize(
    ("start", "words", "found"),
    [
        (LATE, {}, LATE),
        (((), [A]), {A: LATE}, LATE),
        (([A, STOPPED], ()), {A: ([B], ()), B: LATE}, LATE),
        (((), [A, B]), {A: LATE}, ([STOPPED], [B])),
        (([A], ()), {A: ((), [A])}, ([], [A])),  # was interrupted
        # A waits for this rank, which waits for another one.
        (((), [A]), {A: ([OWN, STOPPED], ()), OWN: LATE}, LATE),
        # This rank was stopped, and goes on: it is the one.
        (((), [A, B]), {A: ([OWN], ()), B: ([OWN], ()), OWN: ([A, B], ())}, ([OWN], [])),
        (([A], ()), {A: ([B], ()), B: ([A], ())}, ([A], ())),  # nobody knows
    ],
)
def test_words_are_followed_to_their_end(start: Any, words: Any, found: Any):
    assert follow(OWN, start, words) == found


def _group(rank: int) -> Any:
    return SimpleNamespace(rank=lambda: rank, size=lambda: 4)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = dist.HashStore()
    monkeypatch.setattr(whereabouts, "_store_of", lambda _: found)
    return found


@pytest.mark.usefixtures("store")
def test_a_word_that_comes_a_moment_later_counts():
    """And this rank says at once whom it misses, before it waits for the words of others."""
    found: list[Any] = []
    start, misses = ([A, STOPPED], ()), [A, STOPPED]
    asks = threading.Thread(
        target=lambda: found.append(who_is_the_reason(_group(OWN), start, misses))
    )
    asks.start()
    time.sleep(whereabouts.WORD_S / 4)
    assert OWN in (words_left(_group(A)) or [])
    leave_word(_group(A), LATE)
    asks.join()
    assert found == [LATE]


def test_a_store_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    hangs = threading.Event()
    monkeypatch.setattr(whereabouts, "_store_of", lambda _: hangs.wait(20))
    began = time.monotonic()
    assert who_is_the_reason(_group(OWN), LATE, [STOPPED]) == LATE
    assert words_left(_group(OWN)) is None
    assert time.monotonic() - began < 10
    hangs.set()
