"""One rank per process over shared memory, as on the virtual NPU: same kernels, peers nobody simulates here."""

import ctypes
import mmap
import multiprocessing
import traceback

import pytest

from kernels.proof.execution import compare_with_oracle
from kernels.proof.group import KernelGroup, window_bytes
from kernels.proof.programs import layer_program
from kernels.proof.shapes import Shape
from kernels.proof.simulator import Schedule, Simulator

pytestmark = pytest.mark.usefixtures("proof_library")

BASE = 1 << 39  # where a window is mapped inside the address range of its rank


def address(memory):
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def play(rank, program, memories, size, timeout_ticks, answers):
    """Runs one rank's side of a program; sends its problems."""
    try:
        with Simulator(Schedule(seed=rank, alone=True)) as simulator:
            mapped = [
                simulator.map(peer, (peer + 1 << 40) + BASE, address(memory), size, "window")
                for peer, memory in enumerate(memories)
            ]
            group = KernelGroup(
                simulator,
                program.ranks,
                size,
                cores=3,
                mapped=mapped,
                only=rank,
                timeout_ticks=timeout_ticks,
            )
            results = []
            for step in program.steps:
                if step.op == "dispatch":
                    results.append(group.dispatch(step.calls))
                else:
                    results.append(group.combine(step.calls, results[step.of]))
            assert simulator.run(), simulator.deadlock
            problems = [finding["text"] for finding in simulator.findings]
            if not timeout_ticks:
                problems += [
                    wrong
                    for step, (result,) in zip(program.steps, results, strict=True)
                    if (wrong := compare_with_oracle(group, step, rank, result))
                ]
            answers.put((rank, problems))
    except BaseException:
        answers.put((rank, [traceback.format_exc()]))


def run_ranks(program, ranks, timeout_ticks=0):
    """Forks these ranks; their problems, and the windows."""
    size = window_bytes([(step.op, call) for step in program.steps for call in step.calls])
    memories = [mmap.mmap(-1, size) for _ in range(program.ranks)]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [
        context.Process(target=play, args=(rank, program, memories, size, timeout_ticks, answers))
        for rank in ranks
    ]
    for process in processes:
        process.start()
    try:
        return dict(answers.get(timeout=60) for _ in processes), memories
    finally:
        for process in processes:
            process.join(5)
            process.kill()


@pytest.mark.parametrize("quant", [False, True])
def test_ranks_as_processes_equal_the_oracle(quant):
    shape = Shape(
        ranks=3,
        max_batch=4,
        hidden=1031,
        topk=4,
        local_experts=3,
        quant=quant,
        mask=2,
        comm_quant=quant,
    )
    problems, _ = run_ranks(layer_program("processes", shape, 4, "dcddcc"), range(3))
    assert problems == {0: [], 1: [], 2: []}


def test_a_missing_process_ends_in_a_timeout():
    program = layer_program(
        "alone", Shape(ranks=2, max_batch=2, hidden=1024, topk=1, local_experts=1), 1, "d"
    )
    problems, memories = run_ranks(program, [0], timeout_ticks=2000)  # 2 million ticks of 20 ns
    assert problems == {0: []}
    records = [memories[0][512 + 32 * core : 512 + 32 * core + 16] for core in range(3)]
    peers = {int.from_bytes(record[8:12], "little") for record in records}
    assert 2 in peers  # rank 1, plus one
