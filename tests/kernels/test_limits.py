"""The largest legal calls: every mode at the largest H, K and BS fits UB, and 768 ranks find each other."""

import ctypes
import mmap

import pytest
import torch

from kernels.proof.execution import compare_with_oracle, execute
from kernels.proof.group import MAX_RANKS, KernelGroup, window_bytes
from kernels.proof.programs import layer_program
from kernels.proof.shapes import Shape
from kernels.proof.simulator import Schedule, Simulator

pytestmark = pytest.mark.usefixtures("proof_library")

UB_BYTES = 192 * 1024 - 256 - 8 * 1024  # docs/hostsim.md: what kernels may use


def peak_ub(shape, cores):
    """Of all launches; no finding, equal to the oracle."""
    outcome = execute(layer_program("largest", shape, 5), Schedule(seed=5), cores=cores)
    assert outcome.problems == []
    return max(launch["peak_ub"] for step in outcome.counters for launch in step)


ROWS = {"ranks": 2, "max_batch": 8, "hidden": 8192, "topk": 16, "local_experts": 16}


@pytest.mark.parametrize(
    "shape",
    [
        Shape(**ROWS),
        Shape(**ROWS, mask=2, quant=True, comm_quant=True),
        Shape(**ROWS, mask=2, quant=True, smooth=True, comm_quant=True, dtype=torch.float16),
        Shape(**ROWS, shared_experts=1, shared_ranks=1, quant=True, smooth=True, mask=2),
        Shape(**ROWS, copy_experts=1, const_experts=4, comm_quant=True, shared_x=True),
        Shape(**ROWS, copy_experts=1, const_experts=4, mask=2),
        Shape(**ROWS | {"topk": 2, "local_experts": 1}, tp=2, quant=True),
        Shape(**ROWS | {"hidden": 5120}, product="A2", packed=True, mask=2),
        Shape(**ROWS, copy_experts=1, const_experts=4, comm_quant=True, measured=True),
        Shape(**ROWS | {"hidden": 5120}, product="A2", packed=True, measured=True),
    ],
    ids=[
        "bf16",
        "int8",
        "smooth",
        "shared",
        "const-int8",
        "const",
        "tp",
        "int4",
        "waits",
        "waits-A2",
    ],
)
def test_the_longest_rows_fit_ub(shape):
    """BS plays a part only in the index (the next test) and as one byte per token of a token mask.

    Waits take an int64 and a word more for each rank, of which there may be 768.
    """
    more = 512 + (12 * MAX_RANKS if shape.measured else 0)
    assert peak_ub(shape, cores=2) + more <= UB_BYTES


@pytest.mark.parametrize(
    "shape",
    [
        Shape(2, 512, 1024, 16, 1024, shared_experts=1, shared_ranks=1, quant=True, smooth=True),
        Shape(2, 512, 1024, 16, 512, mask=2, quant=True, smooth=True),
        Shape(2, 256, 1024, 16, 512, product="A2", packed=True),
    ],
    ids=["1024-experts-of-a-rank", "mask", "int4"],
)
def test_the_index_of_the_largest_batch_fits_ub(shape):
    """The lists of BS * K pairs depend on everything but H."""
    assert peak_ub(shape, cores=8) <= UB_BYTES


@pytest.mark.ci
def test_768_ranks():
    """One core each, so that one core waits for all; most ranks host shared experts, whose outputs are small."""
    ranks, moe_ranks = 768, 16
    shape = Shape(
        ranks=ranks,
        max_batch=1,
        hidden=1024,
        topk=2,
        local_experts=2,
        shared_experts=4,
        shared_ranks=ranks - moe_ranks,
    )
    program = layer_program("768", shape, 1)
    size = window_bytes([(step.op, step.calls[0]) for step in program.steps])
    # Windows of which only touched pages take memory; they are checked for bounds, not for what was written.
    windows = [mmap.mmap(-1, size) for _ in range(ranks)]
    with Simulator(Schedule(seed=1, max_steps=10**8)) as simulator:
        mapped = [
            simulator.map(rank, (rank + 1 << 40) + (1 << 39), address_of(window), size, "window")
            for rank, window in enumerate(windows)
        ]
        group = KernelGroup(simulator, ranks, size, cores=1, mapped=mapped)
        dispatched = group.dispatch(program.steps[0].calls)
        combined = group.combine(program.steps[1].calls, dispatched)
        assert simulator.run(), simulator.deadlock[:1000]
        assert simulator.findings == []
        for step, results in zip(program.steps, (dispatched, combined), strict=True):
            for rank, result in enumerate(results):
                assert compare_with_oracle(group, step, rank, result) == "", f"{step.op} {rank}"


def address_of(memory):
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
