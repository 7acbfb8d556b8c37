"""The kernels for several servers inside hostsim: what ``scripts/prove_kernels`` does, bounded, and failures."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch

from kernels.proof.failures import ABSENT, COMBINE, DISPATCH, FULL_QUEUE
from kernels.proof.golden_programs import GoldenProgram, server_golden_cases
from kernels.proof.server_cases import (
    NETWORK,
    SERVER,
    blame,
    dead_links,
    reached,
    reopened,
    what_notices,
    written_sites,
)
from kernels.proof.server_kernels import HIERARCHY_SCHEDULES, KERNELS
from kernels.proof.server_programs import SMALL, random_server_shape, server_program
from kernels.proof.server_proof import (
    run_reopened,
    run_server_golden,
    run_server_schedules,
    run_server_sweep,
    traffic,
    window_cases,
)
from kernels.proof.servers import execute_on_servers
from kernels.proof.simulator import Schedule
from kernels.proof.tally import Tally
from kernels.proof.variants import NO_COPIES, variant

pytestmark = pytest.mark.usefixtures("proof_library")

DEVICE = Path(__file__).parents[2] / "kernels/device/hierarchy"


@pytest.mark.parametrize("case", server_golden_cases(), ids=lambda case: case.name)
def test_golden_data_bit_for_bit(case):
    program = GoldenProgram(case)
    assert program.problems_on_servers(Schedule(seed=2, uneven=True), cores=2) == []


def test_random_programs_equal_the_oracle():
    assert run_server_sweep(range(1000, 1006)) == Tally(passed=6)


MODES = {
    "A3": lambda s: s.product == "A3",
    "A3, token mask": lambda s: s.product == "A3" and s.mask,
    "2 servers": lambda s: s.servers == 2,
    "4 servers": lambda s: s.servers == 4,
    "8 servers": lambda s: s.servers == 8,
    "fp16": lambda s: s.dtype == torch.float16 and not s.comm_quant,
    "fp16, int8 sums": lambda s: s.dtype == torch.float16 and s.comm_quant,
    "bf16, int8 sums": lambda s: s.dtype == torch.bfloat16 and s.comm_quant,
    "int8": lambda s: s.quant,
    "uneven BS": lambda s: s.uneven,
    "K more than a server's experts": lambda s: s.topk > s.local_experts * 8,
    "K = 1": lambda s: s.topk == 1,
    "H = 32": lambda s: s.hidden == 32,
    "few experts chosen": lambda s: s.skewed,
    "running counts": lambda s: s.cumulative,
}


def test_the_sweep_reaches_every_mode():
    """Those of run_server_sweep, whose shape is the first thing that is drawn for a seed."""
    shapes = [random_server_shape(Random(seed)) for seed in range(200)]
    few = {name for name, has in MODES.items() if sum(map(bool, map(has, shapes))) < 3}
    assert few == set()


def test_schedules_with_two_layers_in_flight():
    number = 3 * len(HIERARCHY_SCHEDULES)
    assert run_server_schedules(range(number)) == Tally(passed=number)


def test_every_synchronisation_of_the_sources_is_reached():
    """Or a mutation would not be counted at all."""
    found = {site.split(" ")[0] for site in reached()}
    assert [site for site in written_sites("hierarchy") if site not in found] == []


FLAGS = sorted(
    f"kernels/device/hierarchy/{path.name}:{number} "
    for path in DEVICE.glob("*.h")
    for number, line in enumerate(path.read_text().splitlines(), 1)
    if ("MOE_FLAG(" in line or "MOE_SYNC_ALL(" in line) and "Watch(" not in line
)


@pytest.mark.ci
@pytest.mark.parametrize("place", FLAGS)
def test_every_dropped_flag_and_step_of_all_cores_is_noticed(place):
    """The protocol itself; scripts/prove_kernels drops the other synchronisation, too."""
    sites = [site for site in reached() if site.startswith(place)]
    assert sites
    assert [site for site in sites if not what_notices(site)] == []


@pytest.mark.parametrize("kernels", KERNELS)
def test_open_waits_for_messages_of_the_context_before(kernels):
    """In front of it the network stood still, so all launches failed; without the answer new data meet old messages."""
    *_, answer = sorted(site for site in reached() if "open.h" in site and site.endswith("wait"))
    case = reopened(kernels)
    assert run_reopened(range(10), kernels) == Tally(passed=10)
    kinds = {
        problem.split(" ")[0]
        for seed in range(10)
        for problem in case.run(Schedule(seed=seed), answer).problems[:1]
    }
    assert kinds == {"card-order"}


@pytest.mark.ci
def test_without_the_relays_copies():
    """The build switch the other way: mates read what the card has written."""
    program = server_program("no copies", replace(SMALL, quant=True), 3, "dcdc")
    moved = {}
    for copies in (True, False):
        with nullcontext() if copies else variant(NO_COPIES):
            outcome = execute_on_servers(program, Schedule(seed=3))
            assert outcome.problems == []
            moved[copies] = sum(c["write_own"] for step in outcome.counters[:1] for c in step)
            if not copies:
                assert run_server_golden(1).examples == []
                assert run_server_sweep(range(2000, 2004)) == Tally(passed=4)
                number = len(HIERARCHY_SCHEDULES)
                assert run_server_schedules(range(number)) == Tally(passed=number)
    assert moved[False] < moved[True]


def test_the_window_is_what_the_stock_kernels_ask_for_but_for_few_experts():
    """docs/kernels-hierarchy.md, section 3, says which."""
    larger = {(case.local_experts, case.topk) for case in window_cases() if case.ours > case.stock}
    fits = {1: 4, 2: 9, 3: 14}  # K
    assert {case for case in larger if case[1] <= fits.get(case[0], 16)} == set()
    assert {experts for experts, _ in larger} == {1, 2, 3}


def test_few_posts_and_each_token_once():
    figures = traffic(2)
    assert figures["dispatch"]["posts"] == 3
    assert figures["combine"]["posts"] == 2
    assert figures["dispatch"]["vendor_posts"] > 16
    rows = 16 * 7168 * 2 / 1e6
    assert figures["dispatch"]["wire_mb"] < 1.02 * rows
    assert figures["combine"]["wire_mb"] < 1.01 * rows


PROGRAM = server_program("failing", replace(SMALL, max_batch=2), 1, "dcdc")


def ends_right(blamed):
    assert (blamed.findings, blamed.deadlock, blamed.wrong) == ([], "", [])
    return blamed


def test_an_absent_rank_is_named_by_mates_rail_and_by_those_behind_the_relay():
    blamed = ends_right(blame(PROGRAM, Schedule(seed=1), absent=(3,)))
    for rank, links in enumerate(blamed.links):
        if rank < 8:
            assert links == ([] if rank == 3 else [(3, SERVER)])
        else:
            assert links == ([(3, NETWORK)] if rank == 11 else [(11, SERVER)])


def test_a_server_that_vanishes_is_named_by_the_rail():
    blamed = ends_right(blame(PROGRAM, Schedule(seed=2), absent=range(8, 16)))
    assert blamed.links == [[(rank + 8, NETWORK)] for rank in range(8)] + 8 * [[]]


def test_a_dead_queue_pair_is_named_by_its_receiver_and_one_step_later_by_its_poster():
    wire = dead_links(PROGRAM, {(3, 11): 2})  # the meeting's arrive
    blamed = ends_right(blame(PROGRAM, Schedule(seed=3), wire=wire))
    assert blamed.links[11] == [(3, NETWORK)]
    assert {record.op for record in blamed.records[11]} == {DISPATCH}
    assert blamed.links[8] == [(11, SERVER)]
    assert blamed.links[3] == [(11, NETWORK)]
    assert {record.op for record in blamed.records[3]} == {COMBINE}
    assert {record.reason for mine in blamed.records for record in mine} == {ABSENT}


def test_a_full_queue_says_so():
    """On some seeds the tail of a dead queue stands still."""
    wire = dead_links(PROGRAM, {(3, 11): 2}, depth=2)
    reasons = set()
    for seed in range(6):
        blamed = ends_right(blame(PROGRAM, Schedule(seed=seed), wire=wire))
        assert blamed.links[3] == [(11, NETWORK)]
        reasons |= {record.reason for record in blamed.records[3]}
    assert reasons == {ABSENT, FULL_QUEUE}


def test_other_calls_are_named():
    """Rank 11 thinks that K is another one."""
    calls = [dict(call) for call in PROGRAM.steps[0].calls]
    calls[11]["expert_ids"] = calls[11]["expert_ids"][:, :3].contiguous()
    calls[11]["expert_scales"] = calls[11]["expert_scales"][:, :3].contiguous()
    program = replace(PROGRAM, steps=[replace(PROGRAM.steps[0], calls=calls)])
    blamed = blame(program, Schedule(seed=4))
    assert (blamed.findings, blamed.deadlock) == ([], "")
    assert blamed.links[3] == [(11, NETWORK)]
    assert blamed.links[11] == [(3, NETWORK)]
