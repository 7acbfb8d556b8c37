"""Who is named, by the words of ranks that gave up: those at their end, not those that gave up because of them."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch.distributed as dist

from ascend_moe.cpu.distributed import whereabouts
from ascend_moe.cpu.distributed.whereabouts import follow, leave_word, who_is_the_reason

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


class Group:
    """As a rank sees it."""

    def __init__(self, rank: int) -> None:
        self.rank, self.size = (lambda: rank), (lambda: 4)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = dist.HashStore()
    monkeypatch.setattr(whereabouts, "_store_of", lambda _: found)
    return found


@pytest.mark.usefixtures("store")
def test_a_word_that_comes_a_moment_later_counts():
    """And this rank says at once whom it misses, before it waits for the words of others."""
    found: list[Any] = []
    group: Any = Group(OWN)
    asks = threading.Thread(
        target=lambda: found.append(who_is_the_reason(group, ([A, STOPPED], ()), [A, STOPPED]))
    )
    asks.start()
    time.sleep(whereabouts.WORD_S / 4)
    other: Any = Group(A)
    assert OWN in (whereabouts.words_left(other) or [])
    leave_word(other, LATE)
    asks.join()
    assert found == [LATE]


def test_a_store_that_does_not_answer_is_not_waited_for(
    store: Any, monkeypatch: pytest.MonkeyPatch
):
    hangs, group = threading.Event(), Group(OWN)
    monkeypatch.setattr(whereabouts, "_store_of", lambda _: hangs.wait(20) and store)
    began, asked = time.monotonic(), who_is_the_reason
    assert asked(group, LATE, [STOPPED]) == LATE  # type: ignore[arg-type]
    assert whereabouts.words_left(group) is None  # type: ignore[arg-type]
    assert time.monotonic() - began < 10
    hangs.set()
