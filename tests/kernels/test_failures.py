"""Who does not come, comes late or comes with other cores: kernels end, name the peer, and announce nothing wrong."""

from dataclasses import dataclass, replace

import pytest
import torch

from kernels.proof.execution import compare_with_oracle, execute, old_window
from kernels.proof.failures import (
    ABSENT,
    COMBINE,
    DISPATCH,
    FOREIGN_USE,
    OTHER_CALL,
    LateCase,
    Record,
    UnequalCase,
    enqueue,
    failures,
    new_group,
    records,
)
from kernels.proof.group import NONCE
from kernels.proof.programs import Program, layer_program
from kernels.proof.shapes import Shape
from kernels.proof.simulator import Schedule, Simulator

pytestmark = pytest.mark.usefixtures("proof_library")

SMALL = Shape(ranks=2, max_batch=3, hidden=1024, topk=2, local_experts=2)
TP_PAIR = Shape(ranks=2, max_batch=3, hidden=1024, topk=2, local_experts=1, tp=2)


@dataclass
class Ending:
    """How launches ended of which some never came."""

    finished: bool
    report: str
    findings: list
    who: list
    """Per rank {rank that did not come, operator, its cores}."""
    failures: list


def play(shape, order, *, absent, timeout_ticks):
    """A program whose last operator the ranks from ``absent`` on never launch."""
    program = layer_program("absent", shape, 1, order)
    with Simulator(Schedule(seed=2, patience=3)) as simulator:
        group = new_group(simulator, program, timeout_ticks=timeout_ticks)
        enqueue(group, program, absent=absent)
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


@pytest.mark.parametrize("order", ["d", "dc", "dcc"])
def test_tp_pairs_of_unequal_cores_end_in_an_error_record(order):
    """Without a time limit: nobody waits for a core that is not there."""
    program = layer_program("unequal", TP_PAIR, 1, order)
    for seed in range(20):
        assert UnequalCase(program, (3, 5, 4, 1)).run(Schedule(seed=seed)).problems == []


@pytest.mark.parametrize("order", ["dcdc", "dccdcc"])
@pytest.mark.parametrize("shape", [SMALL, TP_PAIR, Shape(4, 4, 1024, 3, 2)], ids=["2", "TP", "4"])
def test_a_late_rank_spoils_no_result_of_others(shape, order):
    """The launches behind a failed one are enqueued already.

    If they announced rows, peers that were only slow would take them for data.
    """
    case, failed = LateCase(layer_program("late", shape, 2, order), 3), 0
    for seed in range(50):
        outcome = case.run(Schedule(seed=seed))
        assert outcome.problems == [], seed
        failed += outcome.failed
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
        enqueue(group, Program("first", program.contract, steps=program.steps[:1]), absent=1)
        assert simulator.run()
        assert records(simulator, group)[0] == [Record(DISPATCH, 1, 1, 0, ABSENT)]
        group.open(NONCE + 1)
        results = enqueue(group, program)
        assert simulator.run()
        assert failures(simulator, group) == [0, 0]
        for step, ranks in zip(program.steps, results, strict=True):
            for rank, result in enumerate(ranks):
                assert compare_with_oracle(group, step, rank, result) == ""


@pytest.mark.parametrize(
    ("op", "other"),
    [
        (DISPATCH, {"hidden": 2048}),
        (DISPATCH, {"topk": 1}),
        (DISPATCH, {"local_experts": 3}),
        (DISPATCH, {"quant": True}),
        (DISPATCH, {"dtype": torch.float16}),
        (COMBINE, {"comm_quant": True}),
    ],
)
def test_ranks_whose_calls_differ_name_each_other(op, other):
    """Without a time limit: the flags carry a mark of the call."""
    order = "d" if op == DISPATCH else "dc"
    programs = [layer_program("own", replace(SMALL, **change), 1, order) for change in ({}, other)]
    largest = Program("largest", SMALL.contract, steps=[step for p in programs for step in p.steps])
    with Simulator(Schedule(seed=3)) as simulator:
        group = new_group(simulator, largest)
        steps = list(zip(*(program.steps for program in programs), strict=True))
        dispatched = group.dispatch([steps[0][0].calls[0], steps[0][op == DISPATCH].calls[1]])
        if op == COMBINE:
            group.combine([steps[1][0].calls[0], steps[1][1].calls[1]], dispatched)
        assert simulator.run(), simulator.deadlock
        assert simulator.findings == []
        named = [[(r.op, r.peer, r.reason) for r in mine] for mine in records(simulator, group)]
        assert named == [[(op, 1, OTHER_CALL)], [(op, 0, OTHER_CALL)]]


@pytest.mark.parametrize("order", ["dd", "dc", "dcc"])
def test_foreign_use_of_the_buffer_is_named(order):
    """Somebody's collective ran over the control area: the next launch says so, on all ranks, and waits for nobody."""
    program = layer_program("foreign", SMALL, 1, order)
    before = Program("before", program.contract, steps=program.steps[:-1])
    for content in (b"\0", b"\xa5"):
        with Simulator(Schedule(seed=3)) as simulator:
            group = new_group(simulator, program)
            results = enqueue(group, before)
            assert simulator.run()
            for window in group.windows:
                simulator.write(window, 512 * content)
            last = program.steps[-1]
            if last.op == "dispatch":
                group.dispatch(last.calls)
            else:
                group.combine(last.calls, results[last.of])
            assert simulator.run(), simulator.deadlock
            assert simulator.findings == []
            op = DISPATCH if last.op == "dispatch" else COMBINE
            for rank, mine in enumerate(records(simulator, group)):
                assert [(r.op, r.peer, r.reason) for r in mine] == [(op, rank, FOREIGN_USE)]


def test_old_epochs_are_not_flags_of_ours():
    """What execute() fills windows with: plausible epochs, never our nonce; and it runs on any such content."""
    words = torch.frombuffer(bytearray(old_window(1)), dtype=torch.int32).view(-1, 8)
    assert len(words) == (256 << 10) // 32
    assert (words[:, 0] != NONCE).all()
    assert set(words[:, 1].tolist()) == set(range(6))
    program = layer_program("old", SMALL, 1, "dcc")
    assert execute(program, Schedule(seed=4), old_data=old_window(9)).problems == []
