"""A bounded run of `cpu_stress`; ``python -m tests.cpu_stress`` runs for minutes."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from dataclasses import replace

import cpu_stress
import pytest
import worlds
from random_calls import Plan, combine_calls, dispatch_calls
from small_calls import same

from ascend_moe.cpu.windows import areas
from ascend_moe.reference import combine_world, dispatch_world


@pytest.mark.parametrize(
    ("transport", "ranks", "seconds", "seed"),
    [("windows", 4, 8, 2), ("windows", 4, 8, 3), ("windows", 2, 5, 5), ("distributed", 3, 5, 4)],
)
def test_random_orders(transport: str, ranks: int, seconds: float, seed: int):
    assert cpu_stress.run(transport, ranks, seconds, seed) >= 16


RANKS, CALLS = 3, 100


def _the_same_operator_in_a_row(rank: int, one_half: bool, op: str, plans: list[Plan]) -> bool:
    if one_half:
        areas.TWO_HALVES_UP_TO = 0
    prepared = []
    for plan in plans:
        calls = dispatch_calls(plan)
        wanted = dispatch_world(calls)
        back = combine_calls(plan, wanted, calls)
        prepared.append((calls, wanted[rank], back, combine_world(back)[rank]))
    for number in range(CALLS):
        calls, dispatched, back, combined = prepared[number % len(prepared)]
        if op == "combine":
            if not worlds.combine(rank, back).equal(combined):
                return False
        elif not same(worlds.dispatch(rank, calls), dispatched):
            return False
    return True


@pytest.mark.parametrize("one_half", [False, True])
@pytest.mark.parametrize("op", ["dispatch", "combine"])
def test_nobody_writes_what_a_slow_rank_still_reads(one_half: bool, op: str):
    """The last rank is stopped at any moment, also while it reads what the others published."""
    kind = cpu_stress.usual_plan(RANKS, seed=3)
    plans = [replace(kind, hidden=7168, batch_sizes=(64,) * RANKS, seed=n) for n in range(3)]
    with worlds.world(RANKS) as world:
        done = threading.Event()
        stopping = threading.Thread(target=_stop_again_and_again, args=(world, done))
        stopping.start()
        try:
            assert world.run(_the_same_operator_in_a_row, one_half, op, plans) == [True] * RANKS
        finally:
            done.set()
            stopping.join()


def _stop_again_and_again(world: worlds.World, done: threading.Event) -> None:
    pid, draw = world.processes[-1].pid, random.Random(1)
    while not done.wait(draw.random() * 0.01):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.01)
        os.kill(pid, signal.SIGCONT)
