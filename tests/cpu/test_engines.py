"""Native and portable steps in one group, bit for bit: each rank's results by both, and by the oracle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
import worlds
from random_calls import Plan, combine_calls, dispatch_calls

from ascend_moe.cpu.peers import state_of
from ascend_moe.native import find_tool
from ascend_moe.reference import combine_world, dispatch_world

pytestmark = pytest.mark.skipif(find_tool("g++") is None, reason="no g++ here")

RANKS = 4
PLAIN = Plan(
    ep=RANKS,
    local_experts=2,
    batch_sizes=(8,) * RANKS,
    hidden=7168,
    topk=4,
    seed=11,
)
MODES = {
    "plain": {},
    "int8": {"quant_mode": 2},
    "smooth": {"quant_mode": 2, "smooth": True},
    "fp16": {"dtype": "float16", "quant_mode": 2},
    "odd-sizes": {"hidden": 1027, "batch_sizes": (5, 1, 8, 3)},
    "several-blocks": {
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


@pytest.fixture(scope="module")
def both() -> Iterator[list[worlds.World]]:
    """Two groups; what is native in one is portable in the other."""
    native, portable = worlds.NATIVE, worlds.PORTABLE
    with (
        worlds.world(RANKS, environments=[native, portable]) as one,
        worlds.world(RANKS, environments=[portable, native]) as other,
    ):
        yield [one, other]


@pytest.mark.parametrize("mode", MODES)
def test_both_engines_give_the_oracles_bits(both: list[worlds.World], mode: str):
    plan = replace(PLAIN, **MODES[mode])
    options = {"product": plan.product, "contract": plan.contract}
    calls = dispatch_calls(plan)
    wanted = dispatch_world(calls, **options)
    totals = combine_world(combine_calls(plan, wanted, calls), **options)
    one, other = (world.run(_round_trips, plan) for world in both)
    for rank in range(RANKS):
        (engine, dispatched, combined), (swapped, again, home) = one[rank], other[rank]
        assert {engine, swapped} == {"native", "portable"}
        for name, a, b, oracle in zip(
            wanted[0]._fields, dispatched, again, wanted[rank], strict=True
        ):
            assert a.equal(b), f"rank {rank} {name}: the engines differ"
            assert a.equal(oracle), f"rank {rank} {name}"
        assert combined.equal(home), f"rank {rank} combine: the engines differ"
        assert combined.equal(totals[rank]), f"rank {rank} combine"


def _round_trips(rank: int, plan: Plan):
    """Twice, because outputs and areas are used again. Which steps ran, and what came of them."""
    os.environ.update(plan.environment())
    calls = dispatch_calls(plan)
    handles = dispatch_world(calls, product=plan.product, contract=plan.contract)
    for _ in range(2):
        output = handles[rank] = worlds.dispatch(rank, calls)
        combined = worlds.combine(rank, combine_calls(plan, handles, calls))
    windows = state_of(worlds.GROUPS["ep"]).windows
    assert windows is not None
    return ("portable" if windows.native is None else "native"), output, combined
