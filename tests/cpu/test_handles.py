"""Combine on a handle that one rank changed, and on handles of several dispatches: right, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import worlds
from small_calls import homeward, make_calls

from ascend_moe import ConstraintError
from ascend_moe.reference import combine_world, dispatch_world

RANKS = 3
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "masked": {"x_active_mask": torch.tensor([True, True, True, False])},
    "uneven": {"global_bs": 8 * RANKS},
}


@pytest.fixture(scope="module", params=[{}, worlds.DISTRIBUTED], ids=["windows", "distributed"])
def world(request: pytest.FixtureRequest) -> Iterator[worlds.World]:
    with worlds.world(RANKS, environments=[request.param]) as opened:
        # The first calls of a group, and of a kind, take other ways.
        for changes in [*KINDS.values()] * 2:
            opened.run(_home, make_calls(RANKS, **changes))
        yield opened


def _home(rank: int, calls: Any, change: Any = None) -> Any:
    """A round trip; ``change`` is made to rank 1's combine."""
    output = worlds.dispatch(rank, calls)
    back = homeward(calls, [output] * RANKS)[rank]
    if change is not None and rank == 1:
        back |= change(back)
    return worlds.combine(rank, [back] * RANKS)


def _wanted(calls: list[dict[str, Any]]) -> list[torch.Tensor]:
    return combine_world(homeward(calls, dispatch_world(calls)))


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_what_a_dispatch_brought_goes_home(world: worlds.World, changes: dict[str, Any]):
    for seed in (1, 2):
        calls = make_calls(RANKS, seed=seed, **changes)
        assert all(map(torch.equal, world.run(_home, calls), _wanted(calls)))


def _drops_its_last_row(back: dict[str, Any]) -> dict[str, Any]:
    counts = back["ep_send_counts"].clone()
    counts[-1] -= 1
    return {"ep_send_counts": counts}


def _sends_its_first_row_twice(back: dict[str, Any]) -> dict[str, Any]:
    handle = back["assist_info_for_combine"].clone()
    handle[3:6] = handle[:3]
    return {"assist_info_for_combine": handle}


@pytest.mark.parametrize(
    ("change", "row"), [(_drops_its_last_row, -1), (_sends_its_first_row_twice, 0)]
)
def test_a_row_that_is_missing_or_comes_twice_is_named(world: worlds.World, change: Any, row: int):
    calls = make_calls(RANKS, seed=3)
    dispatched = dispatch_world(calls)[1]
    rows = int(dispatched.ep_recv_counts[-1])
    triples = dispatched.assist_info_for_combine[: 3 * rows].view(-1, 3)
    owner, token, slot = triples[row].tolist()
    for rank, outcome in enumerate(world.outcomes(_home, calls, change)):
        if rank == owner:
            assert isinstance(outcome, ConstraintError)
            assert f"token {token}, k {slot} of rank {owner}" in str(outcome)
        elif row == -1:
            assert outcome.equal(_wanted(calls)[rank])
    test_what_a_dispatch_brought_goes_home(world, {})


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
def test_what_a_handle_may_look_like(world: worlds.World, change: Any):
    calls = make_calls(RANKS, seed=4)
    assert all(map(torch.equal, world.run(_home, calls, change), _wanted(calls)))


def _dispatches_under_way(rank: int, batches: list[Any]) -> list[torch.Tensor]:
    outputs = [worlds.dispatch(rank, calls) for calls in batches]
    return [
        worlds.combine(rank, homeward(calls, [output] * RANKS))
        for calls, output in zip(batches, outputs, strict=True)
    ]


def test_several_dispatches_may_be_under_way(world: worlds.World):
    batches = [make_calls(RANKS, seed=seed) for seed in range(6)]
    wanted = [_wanted(calls) for calls in batches]
    for rank, outputs in enumerate(world.run(_dispatches_under_way, batches)):
        assert all(output.equal(one[rank]) for output, one in zip(outputs, wanted, strict=True))
