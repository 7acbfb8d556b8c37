"""performance_info: whom a rank waited for, how launches are merged, and that nothing else is touched or measured.

A microsecond is 50 ticks of the simulator's clock, which jumps while everybody waits for a late rank (proof/waits.py),
or which counts simulated time.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kernels.proof.execution import execute
from kernels.proof.failures import ABSENT, enqueue, new_group, records
from kernels.proof.machine import machine
from kernels.proof.mesh import mesh_program
from kernels.proof.programs import layer_program
from kernels.proof.server_kernels import MESH_SMALL
from kernels.proof.server_programs import SMALL, server_program
from kernels.proof.shapes import Shape
from kernels.proof.simulator import Schedule, Simulator
from kernels.proof.waits import JUMP_US, MeshWaitsCase, ServerWaitsCase, WaitsCase

pytestmark = pytest.mark.usefixtures("proof_library")

RANKS = 4
SHAPE = Shape(
    ranks=RANKS, max_batch=6, hidden=1024, topk=8, local_experts=2, product="A3", measured=True
)
DISPATCH, COMBINE, RELEASE = range(3)
"""Steps of "dcc" in which a rank is late: in the last one its row slots are not yet free."""


def program(product="A3", order="dcc", **changes):
    """All ranks owe rows to all."""
    return layer_program("waits", replace(SHAPE, product=product, **changes), 1, order)


@pytest.mark.parametrize("product", ["A3", "A2"])
@pytest.mark.parametrize("late_step", [DISPATCH, COMBINE, RELEASE])
def test_the_late_rank_is_charged(product, late_step):
    """At its index, on all others, once per launch, whatever the number of cores that stand for it."""
    steps = program(product)
    late_ranks_and_cores = ((0, 1), (3, 3), (1, 5), (2, 2), (3, 2), (0, 4))
    blamed = [
        WaitsCase(steps, cores, late_rank, late_step).blamed(
            Schedule(seed=seed, landing_percent=100)
        )
        for seed, (late_rank, cores) in enumerate(2 * late_ranks_and_cores)
    ]
    assert sum(blamed) >= 7, blamed


@pytest.mark.parametrize("late_step", [DISPATCH, COMBINE, RELEASE])
@pytest.mark.parametrize("late_rank", [1, 10])
def test_of_several_servers(late_step, late_rank):
    shape = replace(SMALL, measured=True, max_batch=2, topk=8)
    steps = server_program("waits", shape, 1, "dcc")
    case = ServerWaitsCase(steps, 2, late_rank, late_step)
    blamed = [case.blamed(Schedule(seed=seed, landing_percent=100)) for seed in range(3)]
    assert sum(blamed) >= 2, blamed


@pytest.mark.parametrize("busy", [1, 10])
def test_a_microsecond_is_one_of_simulated_time(busy):
    """A rank that begins N us behind the others, with something else on its stream first, stands for N us."""
    late, bytes_ = 2, 4096
    steps = program("A3", "d")
    for call in steps.steps[0].calls:
        call["performance_info"].zero_()
    with Simulator(Schedule(seed=7)) as simulator:
        simulator.time(machine("A3"))
        group = new_group(simulator, steps, cores=3)
        assert simulator.run()
        for _ in range(busy):
            source, target = (simulator.put(late, torch.ones(bytes_ // 4), name) for name in "st")
            simulator.launch(late, "mini_get", [source, target], 1)
        (results,) = enqueue(group, steps)
        assert simulator.run()
        assert simulator.findings == []
        began = [simulator.timing(result.launch)["began_us"] for result in results]
        behind = began[late] - min(began)
        assert behind > 20 * busy  # a launch and more
        for rank, call in enumerate(steps.steps[0].calls):
            info = group.kept.content(rank, call["performance_info"])
            if rank != late:
                assert info.argmax() == late
                assert float(info[late]) == pytest.approx(behind, abs=2)
                info[late] = 0
            assert info.max() <= 3


@pytest.mark.parametrize("late_step", [DISPATCH, COMBINE, RELEASE])
@pytest.mark.parametrize("late_rank", [1, 10])
def test_of_full_mesh_over_several_servers(late_step, late_rank):
    """A rank of another server is charged as one of the own: there are no relays."""
    steps = mesh_program("waits", replace(MESH_SMALL, measured=True), 1, "dcc")
    case = MeshWaitsCase(steps, 3, late_rank, late_step)
    blamed = [case.blamed(Schedule(seed=seed, landing_percent=100)) for seed in range(3)]
    assert sum(blamed) >= 2, blamed


@pytest.mark.parametrize(
    ("product", "merged"), [("A3", torch.maximum), ("A2", torch.add)], ids=["A3", "A2"]
)
def test_launches_are_merged_as_the_product_does_it(product, merged):
    """A3 keeps the larger of what was there and what is new, A2 adds. Only low words take part, as CANN's."""
    case = WaitsCase(program(product, "d"), 2, 2, DISPATCH)
    _, waited = case.measure(Schedule(seed=5))
    for initial in (1, JUMP_US, 10 * JUMP_US, 2**31 - 10 * JUMP_US, 7 << 32):
        _, found = replace(case, initial=initial).measure(Schedule(seed=5))
        low = initial % (1 << 32)
        for new, there in zip(waited, found, strict=True):
            assert (there - (initial - low)).equal(merged(new, torch.tensor(low)))


@pytest.mark.parametrize("step", [DISPATCH, COMBINE])
def test_who_comes_meanwhile_is_not_charged_for_another(step):
    """Rank 0 never comes; a core that waits for it until the time limit must still see when rank 1 comes.

    For how many steps rank 1 has to be stalled so that it comes in the middle is the schedule's secret: all are tried.
    """
    steps = program("A3", "dc")
    early = Schedule(seed=2, landing_percent=100)
    with Simulator(early) as simulator:
        before(simulator, steps, step)
        idle = simulator.steps
    found = []
    for stall in range(20, 320, 10 if step == COMBINE else 5):
        late = replace(early, stalled_rank=1, stall_from=idle, stall_steps=stall, patience=40)
        with Simulator(late) as simulator:
            group, handles = before(simulator, steps, step)
            for rank in range(1, RANKS):
                group.local = (rank,)
                if step == DISPATCH:
                    group.dispatch(steps.steps[0].calls)
                else:
                    group.combine(steps.steps[1].calls, handles[rank : rank + 1])
            assert simulator.run(), simulator.deadlock
            for rank in (2, 3):
                named = {(record.peer, record.reason) for record in records(simulator, group)[rank]}
                assert named == {(0, ABSENT)}
                info = steps.steps[0].calls[rank]["performance_info"]
                found.append(group.kept.content(rank, info)[:2].tolist())
    between = [JUMP_US <= late <= never - JUMP_US for never, late in found]
    assert all(never >= 8 * JUMP_US for never, _ in found)
    assert sum(between) >= 2, found


def before(simulator, steps, number):
    """A group with a time limit in front of that step, and the handles of its dispatch."""
    group, handles = new_group(simulator, steps, cores=1, timeout_ticks=8000), []
    assert simulator.run()
    if number > DISPATCH:
        handles = group.dispatch(steps.steps[0].calls)
        assert simulator.run()
    return group, handles


def test_no_other_memory_is_touched():
    """Around the tensor lies other data, which ends and begins inside the same blocks."""
    for product in ("A3", "A2"):
        steps = program(product, "dcc")
        with Simulator(Schedule(seed=4)) as simulator:
            group = new_group(simulator, steps, cores=3)
            around = [torch.arange(100, 100 + RANKS + 8) for _ in range(RANKS)]
            for rank, call in enumerate(steps.steps[0].calls):
                info = call["performance_info"]
                around[rank][3 : 3 + RANKS] = 0
                base = simulator.put(rank, around[rank], "around")
                group.kept.place(rank, info, base + 3 * info.element_size())
            enqueue(group, steps)
            assert simulator.run()
            assert simulator.findings == []
            for rank, call in enumerate(steps.steps[0].calls):
                address = group.kept.address(rank, call["performance_info"], "performance_info")
                found = simulator.get(address - 24, around[rank])[0]
                changed = (found != around[rank]).nonzero().flatten().tolist()
                assert set(changed) <= set(range(3, 3 + RANKS))
                assert found[3 : 3 + RANKS].min() >= 0
                assert found[3 : 3 + RANKS].max() < 1 << 31


@pytest.mark.parametrize("product", ["A3", "A2"])
def test_without_the_tensor_nothing_is_measured(product):
    """No read of the clock but the one that starts a time limit, no poll and no barrier more."""
    measured, plain = (program(product, "dcc", measured=measured) for measured in (True, False))
    cores = 2
    with_it, without = (execute(p, Schedule(seed=6), cores=cores) for p in (measured, plain))
    assert with_it.problems == without.problems == []
    assert not any("waited.h" in site for site in without.sites)
    for of_step in without.counters:
        assert {launch["clock_reads"] for launch in of_step} == {cores}
    assert all(launch["clock_reads"] > cores for step in with_it.counters for launch in step)
