"""Who does not come, comes late or comes with other cores: kernels end, name the peer, and announce nothing wrong."""

from dataclasses import dataclass
from random import Random

import pytest
import torch

from kernels.proof.execution import compare_with_oracle, execute, old_window
from kernels.proof.group import NONCE, KernelGroup, tp_window_bytes, window_bytes
from kernels.proof.programs import Program, Shape, layer_program
from kernels.proof.simulator import Schedule, Simulator

pytestmark = pytest.mark.usefixtures("proof_library")

SMALL = Shape(ranks=2, max_batch=3, hidden=1024, topk=2, local_experts=2)
TP_PAIR = Shape(ranks=2, max_batch=3, hidden=1024, topk=2, local_experts=1, tp=2)

OPEN, DISPATCH, COMBINE = range(3)


@dataclass(frozen=True)
class Record:
    """One error record of a rank: what the kernel wrote for the host (kernels/device/abi.h)."""

    op: int
    epoch: int
    peer: int
    cores: int

    def step(self, program: Program) -> int:
        """The number of the step that wrote it; 0 for `open`, in front of all."""
        if self.op == OPEN:
            return 0
        name = "dispatch" if self.op == DISPATCH else "combine"
        return [n for n, step in enumerate(program.steps) if step.op == name][self.epoch - 1]


def records(simulator, group, nonce=NONCE):
    """Per rank its error records, in order and without doubles."""
    found = []
    for window in group.windows:
        blocks = simulator.get(window + 512, torch.empty(48, 8, dtype=torch.int32))[0]
        mine = {
            Record(op, epoch, peer - 1, cores)
            for tag, epoch, peer, op, cores, *_ in blocks.tolist()
            if tag == nonce and peer
        }
        found.append(sorted(mine, key=lambda record: (record.op, record.epoch, record.peer)))
    return found


def failures(simulator, group):
    """Per rank the number of cores that have given up, as the host reads it."""
    return [
        int(simulator.get(window + 32, torch.empty(8, dtype=torch.int32))[0][0])
        for window in group.windows
    ]


def new_group(simulator, program, *, timeout_ticks=0, cores=4):
    calls = [(step.op, call) for step in program.steps for call in step.calls]
    return KernelGroup(
        simulator,
        program.ranks,
        window_bytes(calls),
        tp=program.tp,
        tp_window_bytes=tp_window_bytes(program.hidden, 8),
        timeout_ticks=timeout_ticks,
        old_data=old_window(1),
        cores=cores,
    )


def enqueue(group, program, ranks=None):
    """All steps on the first `ranks` ranks; the results per step."""
    results = []
    for step in program.steps:
        calls = step.calls[:ranks]
        if step.op == "dispatch":
            results.append(group.dispatch(calls))
        else:
            results.append(group.combine(calls, results[step.of][: len(calls)]))
    return results


@dataclass
class Ending:
    """How launches ended of which some never came."""

    finished: bool
    report: str
    findings: list
    who: list
    """Per rank {rank that did not come, operator, its cores}."""
    failures: list


def play(shape, order, *, absent, timeout_ticks, last_cores=None):
    """A program whose last operator the ranks from ``absent`` on never launch, the others with ``last_cores``."""
    program = layer_program("absent", shape, 1, order)
    last = Program("last", program.contract, program.steps[-1:])
    before = Program("before", program.contract, program.steps[:-1])
    with Simulator(Schedule(seed=2, patience=3)) as simulator:
        group = new_group(simulator, program, timeout_ticks=timeout_ticks)
        results = enqueue(group, before)
        if last_cores:
            group.cores = last_cores
        calls = last.steps[0].calls[:absent]
        if last.steps[0].op == "dispatch":
            group.dispatch(calls)
        else:
            group.combine(calls, results[last.steps[0].of][:absent])
        finished = simulator.run()
        return Ending(
            finished,
            simulator.deadlock,
            simulator.findings,
            [[(r.peer, r.op, r.cores) for r in mine] for mine in records(simulator, group)],
            failures(simulator, group),
        )


def test_a_peer_that_never_comes_is_a_deadlock_without_time_limit():
    ending = play(SMALL, "d", absent=1, timeout_ticks=0)
    assert not ending.finished
    assert "counts of rank 1, epoch 1" in ending.report


@pytest.mark.parametrize(
    ("shape", "order", "who"),
    [
        (SMALL, "d", [[(1, DISPATCH, 0)]]),
        (SMALL, "dc", [[(1, COMBINE, 0)]]),
        (SMALL, "dcc", [[(1, COMBINE, 0)]]),
        # Rank 3 is absent: EP rank 1 for rank 1, TP rank 1 for rank 2. Rank 1 then leaves rank 0, its TP peer, alone.
        (TP_PAIR, "d", [[(1, DISPATCH, 0)]] * 3),
        (TP_PAIR, "dc", [[(1, COMBINE, 0)]] * 3),
    ],
    ids=["dispatch", "combine", "second combine", "TP dispatch", "TP combine"],
)
def test_a_peer_that_never_comes_ends_in_an_error_record(shape, order, who):
    """The kernels of all others end, and each rank has a record that names who did not come to which operator."""
    ending = play(shape, order, absent=len(who), timeout_ticks=100)
    assert (ending.finished, ending.report, ending.findings) == (True, "", [])
    assert ending.who == [*who, []]
    assert all(ending.failures[:-1])
    assert ending.failures[-1] == 0


@pytest.mark.parametrize(("order", "op"), [("d", DISPATCH), ("dc", COMBINE)])
def test_tp_pairs_of_unequal_cores_end_in_an_error_record(order, op):
    """Without a time limit: nobody waits for a core that is not there."""
    ending = play(TP_PAIR, order, absent=4, timeout_ticks=0, last_cores=[3, 5, 4, 1])
    assert (ending.finished, ending.report, ending.findings) == (True, "", [])
    assert ending.who == [[(1, op, 5)], [(0, op, 3)], [(1, op, 1)], [(0, op, 4)]]


@pytest.mark.parametrize("order", ["dcdc", "dccdcc"])
@pytest.mark.parametrize("shape", [SMALL, TP_PAIR, Shape(4, 4, 1024, 3, 2)], ids=["2", "TP", "4"])
def test_a_late_rank_spoils_no_result_of_others(shape, order):
    """A rank is late by more than the time limit: whatever has no error record in front of it is right, everywhere.

    The launches behind a failed one are enqueued already. If they announced rows, peers that were only slow would
    take them for data.
    """
    program, failed = layer_program("late", shape, 2, order), 0
    for seed in range(50):
        random = Random(seed)
        schedule = Schedule(
            seed=seed,
            patience=20,
            stalled_rank=random.randrange(program.ranks),
            stall_from=random.randrange(50, 1500),
            stall_steps=random.choice((2000, 6000)),
            landing_percent=random.choice((5, 30, 70)),
        )
        with Simulator(schedule) as simulator:
            group = new_group(simulator, program, timeout_ticks=1, cores=3)
            results = enqueue(group, program)
            assert simulator.run(), simulator.deadlock
            for rank, mine in enumerate(records(simulator, group)):
                right = min((record.step(program) for record in mine), default=len(results))
                failed += right < len(results)
                for number in range(right):
                    step = program.steps[number]
                    wrong = compare_with_oracle(group, step, rank, results[number][rank])
                    assert not wrong, f"seed {seed} step {number} rank {rank}: {wrong}"
    assert failed > 20


@pytest.mark.parametrize("shape", [SMALL, TP_PAIR], ids=["EP", "TP"])
def test_a_group_made_again_on_the_same_buffers(shape):
    """The windows hold the flags, epochs and rows of the context before, which had gone further than the new one."""
    first, second = (
        layer_program("first", shape, 1, "dcdcc"),
        layer_program("second", shape, 2, "dcc"),
    )
    for seed in range(30):
        with Simulator(Schedule(seed=seed, uneven=True, landing_percent=20)) as simulator:
            group = new_group(simulator, first, cores=3)
            enqueue(group, first)
            group.open(NONCE + 0x77)
            results = enqueue(group, second)
            assert simulator.run(), simulator.deadlock
            assert simulator.findings == []
            for step, ranks in zip(second.steps, results, strict=True):
                for rank, result in enumerate(ranks):
                    assert compare_with_oracle(group, step, rank, result) == ""


def test_a_broken_group_is_whole_again_after_open():
    program = layer_program("again", SMALL, 1, "dc")
    with Simulator(Schedule(seed=2, patience=3)) as simulator:
        group = new_group(simulator, program, timeout_ticks=100)
        enqueue(group, program, ranks=1)
        assert simulator.run()
        assert records(simulator, group)[0] == [Record(DISPATCH, 1, 1, 0)]
        group.open(NONCE + 1)
        results = enqueue(group, program)
        assert simulator.run()
        assert failures(simulator, group) == [0, 0]
        for step, ranks in zip(program.steps, results, strict=True):
            for rank, result in enumerate(ranks):
                assert compare_with_oracle(group, step, rank, result) == ""


def test_old_epochs_are_not_flags_of_ours():
    """What execute() fills windows with: plausible epochs, never our nonce; and it runs on any such content."""
    words = torch.frombuffer(bytearray(old_window(1)), dtype=torch.int32).view(-1, 8)
    assert len(words) == (256 << 10) // 32
    assert (words[:, 0] != NONCE).all()
    assert set(words[:, 1].tolist()) == set(range(6))
    program = layer_program("old", SMALL, 1, "dcc")
    assert execute(program, Schedule(seed=4), old_data=old_window(9)).problems == []
