"""Rows of a dispatch that all ranks bring home unchanged are not looked for; everything else is.

The portable steps only: the native ones always look. `CombineSteps._find_rows` is the looking.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
import worlds
from small_calls import homeward, make_calls

from ascend_moe import ConstraintError
from ascend_moe.cpu.windows import portable
from ascend_moe.reference import combine_world, dispatch_world

RANKS = 3
MASK = torch.tensor([True, True, True, False])
WORLDS = {
    "plain": {},
    "masked": {"x_active_mask": MASK},
    "uneven": {"global_bs": 8 * RANKS},
}


@pytest.fixture(scope="module")
def world() -> Iterator[worlds.World]:
    with worlds.world(RANKS, environments=[worlds.PORTABLE]) as opened:
        # The first calls of a group, and of a kind, take other ways.
        for changes in [*WORLDS.values()] * 2:
            opened.run(_home, make_calls(RANKS, **changes))
        yield opened


def _home(rank: int, calls: Any, change: Any = None, changed_on: int = 1) -> tuple[Any, bool]:
    """A round trip, and whether this rank looked for its rows; ``change`` is made to one rank's combine."""
    output = worlds.dispatch(rank, calls)
    back = homeward(calls, [output] * RANKS)[rank]
    if change is not None and rank == changed_on:
        back |= change(back)
    return _combine(rank, back)


def _combine(rank: int, back: dict[str, Any]) -> tuple[Any, bool]:
    real, looked = portable.CombineSteps._find_rows, []

    def find(*arguments: Any) -> int:
        looked.append(True)
        return real(*arguments)

    with mock.patch.object(portable.CombineSteps, "_find_rows", find):
        try:
            combined: Any = worlds.combine(rank, [back] * RANKS)
        except ConstraintError as error:
            combined = str(error)
    return combined, bool(looked)


def _wanted(calls: list[dict[str, Any]]) -> list[torch.Tensor]:
    return combine_world(homeward(calls, dispatch_world(calls)))


@pytest.mark.parametrize("changes", WORLDS.values(), ids=WORLDS)
def test_nobody_looks_for_rows_that_are_known(world: worlds.World, changes: dict[str, Any]):
    for seed in (1, 2):
        calls = make_calls(RANKS, seed=seed, **changes)
        for (combined, looked), oracle in zip(world.run(_home, calls), _wanted(calls), strict=True):
            assert combined.equal(oracle)
            assert not looked


def _drops_its_last_row(back: dict[str, Any]) -> dict[str, Any]:
    counts = back["ep_send_counts"].clone()
    counts[-1] -= 1
    return {"ep_send_counts": counts}


def _sends_its_first_row_twice(back: dict[str, Any]) -> dict[str, Any]:
    handle = back["assist_info_for_combine"].clone()
    handle[3:6] = handle[:3]
    return {"assist_info_for_combine": handle}


def test_a_row_that_a_peer_drops_is_missed(world: worlds.World):
    calls = make_calls(RANKS, seed=3)
    last = dispatch_world(calls)[1]
    rows = int(last.ep_recv_counts[-1])
    owner, token, _ = last.assist_info_for_combine[: 3 * rows].view(-1, 3)[-1].tolist()
    outcomes = world.run(_home, calls, _drops_its_last_row)
    assert all(looked for _, looked in outcomes)
    for rank, (combined, _) in enumerate(outcomes):
        if rank == owner:
            assert f"token {token}" in combined
        else:
            assert combined.equal(_wanted(calls)[rank])
    test_nobody_looks_for_rows_that_are_known(world, {})


def test_a_row_that_a_peer_sends_twice_is_noticed(world: worlds.World):
    calls = make_calls(RANKS, seed=3)
    owner = int(dispatch_world(calls)[1].assist_info_for_combine[0])
    outcomes = world.run(_home, calls, _sends_its_first_row_twice)
    assert all(looked for _, looked in outcomes)
    assert isinstance(outcomes[owner][0], str)
    test_nobody_looks_for_rows_that_are_known(world, {})


def _backwards(back: dict[str, Any]) -> dict[str, Any]:
    rows = int(back["ep_send_counts"][-1])
    handle, expand_x = back["assist_info_for_combine"].clone(), back["expand_x"].clone()
    handle[: 3 * rows] = handle[: 3 * rows].view(-1, 3).flip(0).reshape(-1)
    expand_x[:rows] = expand_x[:rows].flip(0)
    return {"assist_info_for_combine": handle, "expand_x": expand_x}


def _another_expert(back: dict[str, Any]) -> dict[str, Any]:
    """One token says that it chose somebody else; its row is there, whoever made it."""
    ids = back["expert_ids"].clone()
    ids[0, 0] = next(expert for expert in range(2 * RANKS) if expert not in ids[0].tolist())
    return {"expert_ids": ids}


@pytest.mark.parametrize("change", [_backwards, _another_expert])
def test_one_rank_that_changed_something_makes_all_look(world: worlds.World, change: Any):
    calls = make_calls(RANKS, seed=4)
    outcomes = world.run(_home, calls, change)
    for (combined, looked), oracle in zip(outcomes, _wanted(calls), strict=True):
        assert combined.equal(oracle)
        assert looked


def _dispatches_under_way(rank: int, batches: list[Any]) -> list[tuple[Any, bool]]:
    outputs = [worlds.dispatch(rank, calls) for calls in batches]
    return [
        _combine(rank, homeward(calls, [output] * RANKS)[rank])
        for calls, output in zip(batches, outputs, strict=True)
    ]


def test_several_dispatches_are_known_at_a_time(world: worlds.World):
    batches = [make_calls(RANKS, seed=seed) for seed in range(portable.HANDLES_KEPT + 1)]
    wanted = [_wanted(calls) for calls in batches]
    for rank, outcomes in enumerate(world.run(_dispatches_under_way, batches)):
        assert [looked for _, looked in outcomes] == [True] + [False] * portable.HANDLES_KEPT
        for (combined, _), oracle in zip(outcomes, wanted, strict=True):
            assert combined.equal(oracle[rank])
