"""A bounded run of `cpu_stress`; ``python -m tests.cpu_stress`` runs for minutes."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import cpu_stress
import pytest
import worlds
from random_calls import Plan, combine_calls, dispatch_calls

from ascend_moe.cpu.windows import group as windows
from ascend_moe.cpu.windows import portable
from ascend_moe.reference import combine_world, dispatch_world


@pytest.mark.parametrize(
    ("engine", "ranks", "seconds", "seed"),
    [
        ("native", 4, 8, 2),
        ("native", 4, 8, 3),
        ("native", 2, 5, 5),
        ("portable", 3, 7, 4),
        ("mixed", 4, 8, 7),
    ],
)
def test_random_orders(engine: str, ranks: int, seconds: float, seed: int):
    assert cpu_stress.run(engine, ranks, seconds, seed) >= 16


RANKS, CALLS = 3, 6


def _one_rank_is_slow_to_read(rank: int, one_half: bool, op: str, plans: list[Plan]) -> bool:
    """Dispatches, or combines, in a row; rank 2 sleeps before it reads what the others published."""
    if one_half:
        windows.TWO_HALVES_UP_TO = 0
    kinds = (portable.DispatchSteps, portable.CombineSteps)
    real = {kind: kind.receive for kind in kinds}

    def slow(steps: portable.Steps, views: Any) -> int:
        time.sleep(0.03)
        return real[type(steps)](steps, views)

    if rank == RANKS - 1:
        for kind in kinds:
            kind.receive = slow
    for plan in [plans[0], *plans]:
        calls = dispatch_calls(plan)
        wanted = dispatch_world(calls)
        if op == "dispatch":
            output = worlds.dispatch(rank, calls)
            if not all(one.equal(other) for one, other in zip(output, wanted[rank], strict=True)):
                return False
        else:
            back = combine_calls(plan, wanted, calls)
            if not worlds.combine(rank, back).equal(combine_world(back)[rank]):
                return False
    return True


@pytest.mark.parametrize("one_half", [False, True])
@pytest.mark.parametrize("op", ["dispatch", "combine"])
def test_nobody_writes_what_a_slow_rank_still_reads(one_half: bool, op: str):
    plans = [replace(cpu_stress.usual_plan(RANKS, seed=3), seed=number) for number in range(CALLS)]
    environments = [worlds.NATIVE, worlds.NATIVE, worlds.PORTABLE]
    with worlds.world(RANKS, environments=environments) as world:
        assert world.run(_one_rank_is_slow_to_read, one_half, op, plans) == [True] * RANKS
