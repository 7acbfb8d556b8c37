"""Executor == oracle, over random legal calls: every output of every rank, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import worlds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_calls import Plan, combine_calls, dispatch_calls, plans

from ascend_moe.reference import combine_world, dispatch_world

SHAPES = {
    "2ranks": (2, 1, [worlds.NATIVE]),
    "4ranks": (4, 1, [worlds.NATIVE]),
    "4ranks-tp2": (4, 2, [worlds.NATIVE]),
    "3ranks-portable": (3, 1, [worlds.PORTABLE]),
    "3ranks-mixed": (3, 1, [worlds.NATIVE, worlds.PORTABLE]),
    "3ranks-distributed": (3, 1, [worlds.DISTRIBUTED]),
}
"""Ranks, TP, and the environments of the ranks in turn. With mixed ones native and portable steps read each other."""


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES)
def world(request: pytest.FixtureRequest) -> Iterator[worlds.World]:
    ranks, tp, environments = request.param
    with worlds.world(ranks, tp=tp, environments=environments) as opened:
        yield opened


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_equals_reference(world: worlds.World, data: st.DataObject):
    plan = data.draw(plans(world.size, tp=world.tp))
    options = {"product": plan.product, "contract": plan.contract}
    calls = dispatch_calls(plan)
    wanted = dispatch_world(calls, **options)
    homeward = combine_calls(plan, wanted, calls)
    wanted_combined = combine_world(homeward, **options)
    dispatched, combined = zip(*world.run(_round_trip, plan), strict=True)
    for rank in range(world.size):
        for name, ours, oracle in zip(
            wanted[0]._fields, dispatched[rank], wanted[rank], strict=True
        ):
            assert ours.shape == oracle.shape, f"rank {rank} {name}"
            assert _same_bits(ours, oracle), f"rank {rank} {name}"
        assert _same_bits(combined[rank], wanted_combined[rank]), f"rank {rank} combine"


def _round_trip(rank: int, plan: Plan):
    """Ranks make their own tensors from the plan: nothing but the plan goes through the pipe."""
    os.environ.update(plan.environment())
    calls = dispatch_calls(plan)
    worlds.dispatch(rank, calls)  # the first of its kind is checked, the next one remembered
    output = worlds.dispatch(rank, calls)
    handles = dispatch_world(calls, product=plan.product, contract=plan.contract)
    handles[rank] = output  # combine gets what this executor dispatched
    return output, worlds.combine(rank, combine_calls(plan, handles, calls))


def _same_bits(ours, oracle) -> bool:
    return ours.dtype == oracle.dtype and ours.equal(oracle)
