"""Executor == oracle, over random legal calls: every output of every rank, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
import worlds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_calls import Plan, combine_calls, dispatch_calls, plans, require_right

from ascend_moe.reference import combine_world, dispatch_world

SHAPES = {
    "2ranks": (2, 1, {}),
    "3ranks": (3, 1, {}),
    "4ranks": (4, 1, {}),
    "4ranks-tp2": (4, 2, {}),
    "3ranks-distributed": (3, 1, worlds.DISTRIBUTED),
}
"""Ranks, TP, and the environment of the ranks."""


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES)
def small(request: pytest.FixtureRequest) -> Iterator[worlds.World]:
    ranks, tp, environment = request.param
    with worlds.world(ranks, tp=tp, environments=[environment]) as opened:
        yield opened


def _oracle(plan: Plan):
    options = {"product": plan.product, "contract": plan.contract}
    calls = dispatch_calls(plan)
    wanted = dispatch_world(calls, **options)
    return wanted, combine_world(combine_calls(plan, wanted, calls), **options)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_equals_reference(small: worlds.World, data: st.DataObject):
    plan = data.draw(plans(small.size, tp=small.tp))
    require_right(small.run(_round_trip, plan), *_oracle(plan))


RANKS = 4
LARGE = Plan(ep=RANKS, local_experts=2, batch_sizes=(8,) * RANKS, hidden=7168, topk=4, seed=11)
MODES = {
    "plain": {},
    "int8": {"quant_mode": 2},
    "smooth": {"quant_mode": 2, "smooth": True},
    "fp16": {"dtype": "float16", "quant_mode": 2},
    "odd-sizes": {"hidden": 1027, "batch_sizes": (5, 1, 8, 3)},
    "many-rows": {
        "contract": "cann-8.3",
        "batch_sizes": (60,) * RANKS,
        "hidden": 4096,
        "mask": "2d",
        "special": (1, 2, 2),
    },
    "shared-experts": {"shared_experts": 1, "shared_ranks": 2, "quant_mode": 2, "smooth": True},
    "shared-expert-x": {"shared_expert_x": "3d"},
    "special-experts": {"contract": "cann-8.3", "special": (1, 2, 2)},
    "mask-1d": {"mask": "1d", "shared_experts": 1, "shared_ranks": 1},
    "mask-2d": {"contract": "cann-8.3", "mask": "2d", "special": (1, 1, 1)},
    "mask-and-shared-x": {"mask": "1d", "shared_expert_x": "2d", "skewed": True},
}


@pytest.mark.parametrize("mode", MODES)
def test_large_rows_in_every_mode(world: worlds.World, mode: str):
    """Half of the ranks have tensors with gaps, which take their steps one by one: all must meet."""
    plan = replace(LARGE, **MODES[mode])
    oracle = _oracle(plan)
    for with_gaps in (0, 1):
        require_right(world.run(_mixed_round_trip, plan, with_gaps), *oracle)


def _mixed_round_trip(rank: int, plan: Plan, with_gaps: int):
    """Twice, because outputs and areas are used again."""
    return [_round_trip(rank, replace(plan, strided=rank % 2 == with_gaps)) for _ in range(2)][-1]


def _round_trip(rank: int, plan: Plan):
    """Ranks make their own tensors from the plan: nothing but the plan goes through the pipe."""
    os.environ.update(plan.environment())
    calls = dispatch_calls(plan)
    worlds.dispatch(rank, calls)  # the first of its kind is checked, the next one remembered
    output = worlds.dispatch(rank, calls)
    handles = dispatch_world(calls, product=plan.product, contract=plan.contract)
    handles[rank] = output  # combine gets what this executor dispatched
    return output, worlds.combine(rank, combine_calls(plan, handles, calls))
