"""Ranks are gone: the others go on with elastic_info, bit for bit as the oracle, whatever the failed launches left.

The bounded part of ``kernels.proof.survivor_proof``, and what elastic_info must say.
"""

from dataclasses import replace

import pytest
import torch

from ascend_moe.contract.elastic import Elastic
from kernels.proof.execution import compare_with_oracle
from kernels.proof.failures import ABSENT, OTHER_RANKS, enqueue, new_group, records
from kernels.proof.group import NONCE
from kernels.proof.programs import layer_program
from kernels.proof.shapes import Shape
from kernels.proof.simulator import Schedule, Simulator
from kernels.proof.survivor_proof import (
    POINTS,
    death_cases,
    reached,
    run_deaths,
    run_left_sweep,
    what_notices,
)
from kernels.proof.survivors import program_left
from kernels.proof.tally import Tally

pytestmark = pytest.mark.usefixtures("proof_library")

LAYERS = Shape(ranks=4, max_batch=3, hidden=1024, topk=2, local_experts=2)
LEFT = Elastic(4, 0, 6, (0, 1, 3))


def test_any_ranks_that_are_left_equal_the_oracle():
    """All modes, any order of the new numbers, ranks that change to the other kind."""
    assert run_left_sweep(range(5000, 5025)) == Tally(passed=25)


def test_deaths_at_every_kind_of_point():
    deaths = run_deaths(range(96))
    assert deaths.tally == Tally(passed=96)
    assert {*POINTS} <= {*deaths.points}
    assert deaths.points["elsewhere"] <= 5


def test_a_nonce_of_before_would_let_old_flags_count():
    """What keeps the windows of failed launches out is the nonce: without a new one the proof above fails."""
    cases = [replace(case, fresh=False) for case in death_cases()[:3]]
    schedules = [Schedule(seed=seed, uneven=True) for seed in range(20)]
    assert any(case.run(schedule).problems for case in cases for schedule in schedules)


@pytest.mark.parametrize("file", ["elastic.h", "meet.h", "open.h"])
def test_missing_synchronisation_is_noticed(file):
    sites = [site for site in reached() if f"/{file}:" in site]
    assert sites
    assert [site for site in sites if not what_notices(site)] == []


def play(elastic, words, *, timeout_ticks=0):
    """A dispatch on the ranks that are left, whose elastic_info says ``words``, by old rank or all the same."""
    program = program_left("words", LAYERS, LEFT, 1, "d")
    with Simulator(Schedule(seed=3, patience=3)) as simulator:
        group = new_group(simulator, program, ranks=4, timeout_ticks=timeout_ticks, opened=False)
        group.open(NONCE, elastic)
        step = program.steps[0]
        step.calls = [
            call | {"elastic_info": words.get(call["ep_rank_id"], call["elastic_info"])}
            for call in step.calls
        ]
        enqueue(group, program)
        assert simulator.run(), simulator.deadlock
        assert simulator.findings == []
        return [
            [(record.peer, record.cores, record.reason) for record in mine]
            for mine in records(simulator, group)
        ]


def said(word, value):
    words = torch.tensor(LEFT.words(), dtype=torch.int32)
    words[word] = value
    return words


@pytest.mark.parametrize(
    ("word", "value"),
    [(0, 0), (0, 2), (1, 4), (1, 1 << 30), (2, 1), (3, 8), (6, 2), (7, -1), (8, 1 << 28), (11, 0)],
)
def test_other_words_than_agreed_end_in_a_record(word, value):
    """Without a time limit: whoever reads them ends at once, touches nothing and says which word it is."""
    wrong = dict.fromkeys(LEFT.old_ranks, said(word, value))
    expected = [
        [(rank, word, OTHER_RANKS)] if rank in LEFT.old_ranks else []
        for rank in range(LAYERS.ranks)
    ]
    assert play(LEFT, wrong) == expected


def test_one_rank_with_other_words_is_missed_by_the_others():
    named = play(LEFT, {3: said(8, 1)}, timeout_ticks=100)
    assert named == [[(3, 0, ABSENT)], [(3, 0, ABSENT)], [], [(3, 8, OTHER_RANKS)]]


def test_a_whole_group_takes_word_0_only():
    """Nobody has met without others: who leaves ranks out is told so; word 0 = 0 is as None."""
    ranks = range(LAYERS.ranks)
    program = layer_program("whole", LAYERS, 1, "dcc")
    for first, records_wanted in ((0, [[]] * 4), (1, [[(rank, 0, OTHER_RANKS)] for rank in ranks])):
        with Simulator(Schedule(seed=3)) as simulator:
            group = new_group(simulator, program)
            for step in program.steps:
                step.calls = [call | {"elastic_info": said(0, first)} for call in step.calls]
            results = enqueue(group, program)
            assert simulator.run(), simulator.deadlock
            found = records(simulator, group)
            assert [[(r.peer, r.cores, r.reason) for r in mine] for mine in found] == records_wanted
            if first:
                continue
            for step, of_step in zip(program.steps, results, strict=True):
                for rank in ranks:
                    assert compare_with_oracle(group, step, rank, of_step[rank]) == ""


def test_a_group_that_ranks_have_left_wants_elastic_info():
    named = play(LEFT, dict.fromkeys(LEFT.old_ranks))
    assert named == [[(0, 0, OTHER_RANKS)], [(1, 0, OTHER_RANKS)], [], [(3, 0, OTHER_RANKS)]]
