"""Over torch.distributed: what the ranks of a call can do to each other between their statements and their rows."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import small_calls
import worlds
from small_calls import kinds_remembered, works

from ascend_moe.contract.errors import PeerError
from ascend_moe.cpu.distributed.exchange import Exchange
from ascend_moe.cpu.distributed.messages import MESSAGE
from ascend_moe.cpu.distributed.steps import Far

RANKS, VICTIM = 3, 1


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return worlds.DISTRIBUTED


def test_a_kind_of_call_is_remembered(doomed: worlds.World):
    works(doomed, times=3)
    assert doomed.run(kinds_remembered) == [2] * RANKS


def _instead_of_rows(rank: int, act: Callable[[], None], calls: Any) -> Any:
    if rank != VICTIM:
        return worlds.dispatch(rank, calls)
    real = Exchange.messages

    def messages(*arguments: Any) -> Any:
        act()
        return real(*arguments)

    with mock.patch.object(Exchange, "messages", messages):
        return worlds.dispatch(rank, calls)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _sleep() -> None:
    time.sleep(6)


@pytest.mark.parametrize(
    ("act", "said"),
    [(_die, "rank 1 closed the connection"), (_sleep, "rank 1 did not arrive within 3 s")],
)
def test_a_rank_that_keeps_its_rows_is_named(doomed: worlds.World, act: Any, said: str):
    works(doomed)
    limit, calls = {"ASCEND_MOE_TIMEOUT_S": "3"}, small_calls.make_calls(RANKS)
    started = time.monotonic()
    outcomes = doomed.outcomes(worlds.under, limit, _instead_of_rows, act, calls)
    assert time.monotonic() - started < 20
    for outcome in (outcomes[0], outcomes[2]):
        assert isinstance(outcome, PeerError)
        assert outcome.ranks == (VICTIM,)
        assert said in str(outcome)


def _chooses_nobody(rank: int, calls: Any) -> Any:
    """The victim's block says that its tokens chose an expert that does not exist."""
    if rank != VICTIM:
        return worlds.dispatch(rank, calls)
    real = Far.carry

    def carry(far: Far, *arguments: Any, **keywords: Any) -> Any:
        far.outgoing.bytes[MESSAGE.itemsize + 12 :][:32] = 99
        return real(far, *arguments, **keywords)

    with mock.patch.object(Far, "carry", carry):
        return worlds.dispatch(rank, calls)


def test_blocks_are_checked_before_use(doomed: worlds.World):
    works(doomed)
    first, *_ = doomed.outcomes(_chooses_nobody, small_calls.make_calls(RANKS))
    assert isinstance(first, PeerError)
    assert first.ranks == (VICTIM,)
    assert "rank 1 published rows that cannot be" in str(first)
