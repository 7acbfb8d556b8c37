"""Over torch.distributed: what the ranks of a call can do to each other between their statements and their rows."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import small_calls
import worlds

from ascend_moe.contract.errors import PeerError
from ascend_moe.cpu.distributed.exchange import Exchange
from ascend_moe.cpu.distributed.messages import MESSAGE
from ascend_moe.cpu.distributed.peers import state_of
from ascend_moe.cpu.distributed.steps import Far
from ascend_moe.cpu.windows import build
from ascend_moe.reference import combine_world, dispatch_world

RANKS, VICTIM = 3, 1


@pytest.fixture
def world() -> Iterator[worlds.World]:
    with worlds.world(RANKS, environments=[worlds.DISTRIBUTED]) as opened:
        yield opened


def works(world: worlds.World) -> None:
    calls = small_calls.make_calls(RANKS)
    wanted = dispatch_world(calls)
    for output, oracle in zip(world.run(worlds.dispatch, calls), wanted, strict=True):
        assert all(one.equal(other) for one, other in zip(output, oracle, strict=True))
    back = small_calls.homeward(calls, wanted)
    for output, oracle in zip(world.run(worlds.combine, back), combine_world(back), strict=True):
        assert output.equal(oracle)


def _kinds_remembered(rank: int) -> int:
    return len(state_of(worlds.GROUPS["ep"]).calls)


def test_a_kind_of_call_is_remembered(world: worlds.World):
    for _ in range(3):
        works(world)
    assert world.run(_kinds_remembered) == [2] * RANKS


def _has_no_library(rank: int) -> None:
    build.LIBRARY = build.LIBRARY.with_name("nowhere.so")


def test_one_rank_without_the_library_decides_for_all(world: worlds.World):
    world.run(_has_no_library, ranks=[VICTIM])
    for _ in range(3):
        works(world)
    assert world.run(_kinds_remembered) == [0] * RANKS


def _instead_of_rows(rank: int, act: Callable[[], None], calls: Any) -> Any:
    os.environ["ASCEND_MOE_TIMEOUT_S"] = "3"
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
def test_a_rank_that_keeps_its_rows_is_named(world: worlds.World, act: Any, said: str):
    works(world)
    started = time.monotonic()
    outcomes = world.outcomes(_instead_of_rows, act, small_calls.make_calls(RANKS))
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


def test_blocks_are_checked_before_use(world: worlds.World):
    works(world)
    first, *_ = world.outcomes(_chooses_nobody, small_calls.make_calls(RANKS))
    assert isinstance(first, PeerError)
    assert first.ranks == (VICTIM,)
    assert "rank 1 published rows that cannot be" in str(first)
