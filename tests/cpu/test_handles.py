"""Combine on a handle that one rank changed, and on handles of several dispatches: right, or refused by name."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch
import worlds
from small_calls import homeward, make_calls, same

from ascend_moe import ConstraintError
from ascend_moe.reference import combine_world, dispatch_world

RANKS = 3
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "masked": {"x_active_mask": torch.tensor([True, True, True, False])},
    "uneven": {"global_bs": 8 * RANKS},
}


@pytest.fixture(scope="module", autouse=True)
def _warm(world: worlds.World) -> None:
    """The first calls of a group, and of a kind, take other ways."""
    for changes in [*KINDS.values()] * 2:
        world.run(_home, make_calls(RANKS, **changes))


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
        assert same(world.run(_home, calls), _wanted(calls))


def _drops_its_last_row(back: dict[str, Any]) -> dict[str, Any]:
    counts = back["ep_send_counts"].clone()
    counts[-1] -= 1
    return {"ep_send_counts": counts}


def _sends_its_first_row_twice(back: dict[str, Any]) -> dict[str, Any]:
    handle = back["assist_info_for_combine"].clone()
    handle[3:6] = handle[:3]
    return {"assist_info_for_combine": handle}


MISSING, DOUBLED = "no rank sent a row for", "two rows claim"


@pytest.mark.parametrize(
    ("change", "rows"),
    [(_drops_its_last_row, {-1: MISSING}), (_sends_its_first_row_twice, {0: DOUBLED, 1: MISSING})],
)
def test_a_row_that_is_missing_or_comes_twice_is_named(
    world: worlds.World, change: Any, rows: dict[int, str]
):
    calls = make_calls(RANKS, seed=3)
    dispatched = dispatch_world(calls)[1]
    received = int(dispatched.ep_recv_counts[-1])
    triples = dispatched.assist_info_for_combine[: 3 * received].view(-1, 3).tolist()
    said = defaultdict(list)
    for row, what in rows.items():
        owner, token, slot = triples[row]
        said[owner].append(f"{what} token {token}, k {slot} of rank {owner} (1 such")
    for rank, outcome in enumerate(world.outcomes(_home, calls, change)):
        if rank in said:
            assert isinstance(outcome, ConstraintError)
            assert all(text in str(outcome) for text in said[rank])
        else:
            assert outcome.equal(_wanted(calls)[rank])
    test_what_a_dispatch_brought_goes_home(world, {})


def _backwards(back: dict[str, Any]) -> dict[str, Any]:
    rows = int(back["ep_send_counts"][-1])
    handle, expand_x = back["assist_info_for_combine"].clone(), back["expand_x"].clone()
    handle[: 3 * rows] = handle[: 3 * rows].view(-1, 3).flip(0).reshape(-1)
    expand_x[:rows] = expand_x[:rows].flip(0)
    return {"assist_info_for_combine": handle, "expand_x": expand_x}


def _another_layer(back: dict[str, Any]) -> dict[str, Any]:
    """Its tokens say that they chose others; their rows are there, whoever made them: the triples decide."""
    return {"expert_ids": (back["expert_ids"] + 1) % (2 * RANKS)}


@pytest.mark.parametrize("change", [_backwards, _another_layer])
def test_what_a_handle_may_look_like(world: worlds.World, change: Any):
    calls = make_calls(RANKS, seed=4)
    assert same(world.run(_home, calls, change), _wanted(calls))


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
        assert same(outputs, [one[rank] for one in wanted])
