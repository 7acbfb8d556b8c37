"""The cost model moves the bytes that the simulator counts, and knows the limits it claims."""

from dataclasses import replace

import pytest

from kernels.proof import cost
from kernels.proof.execution import execute
from kernels.proof.programs import layer_program
from kernels.proof.shapes import Shape
from kernels.proof.simulator import Schedule
from scripts.benchmarks.kernels import table

MACHINE = cost.Machine()


@pytest.mark.usefixtures("proof_library")
@pytest.mark.parametrize(("ep", "batch", "int8"), [(8, 8, False), (8, 24, True), (16, 8, False)])
def test_bytes_and_instructions_are_the_counted_ones(ep, batch, int8):
    shape = Shape(
        ranks=ep,
        max_batch=batch,
        hidden=cost.HIDDEN,
        topk=cost.TOPK,
        local_experts=cost.EXPERTS // ep,
        quant=int8,
    )
    outcome = execute(layer_program("counted", shape, 0), Schedule(seed=0), cores=48)
    assert outcome.problems == []
    modelled = (cost.dispatch_pull, cost.combine_push)
    for phases, counters in zip(modelled, outcome.counters, strict=True):
        phases = phases(cost.Shape(batch, ep, int8), MACHINE)
        link = sum(rank["read_remote"] + rank["write_remote"] for rank in counters) / ep
        elements = sum(rank["vector_elements"] for rank in counters) / ep
        assert sum(phase.link for phase in phases) == pytest.approx(link, rel=0.03)
        assert sum(phase.elements for phase in phases) == pytest.approx(elements, rel=0.06)


def test_no_estimate_is_below_the_launch_and_the_link():
    for name, operator in cost.OPERATORS.items():
        for batch in cost.BATCHES:
            for ep in cost.EP_SIZES:
                phases = operator(cost.Shape(batch, ep, name.endswith("int8")), MACHINE)
                least = MACHINE.launch + cost.roofline(phases, MACHINE)
                assert cost.seconds(phases, MACHINE) >= least


def test_an_endless_resource_costs_nothing():
    phases = cost.dispatch_pull(cost.Shape(128, 32), MACHINE)
    wide = replace(MACHINE, link=1e18, memory=1e18, core_remote_read=1e18, core_local=1e18)
    assert cost.seconds(phases, wide) < MACHINE.launch + 10e-6


def test_rows_once_per_destination_rank():
    assert cost.once_per_rank(256) == 1.0  # one expert per rank: every row has its own
    assert cost.once_per_rank(2) == pytest.approx(2 * (1 - 0.5**8) / 8, rel=0.01)


def test_the_table_says_what_it_is():
    printed = table(MACHINE)
    assert printed.startswith("MODEL")
    assert len(cost.estimates_us()["combine"]) == len(cost.BATCHES) * len(cost.EP_SIZES)
    assert " 132 " in printed
