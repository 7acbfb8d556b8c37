"""Full mesh over several servers of A2 inside hostsim: what ``scripts/prove_kernels`` does, bounded, and failures."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import pytest
import torch

from kernels.proof.failures import ABSENT, DISPATCH
from kernels.proof.golden_programs import GoldenProgram, mesh_golden_cases
from kernels.proof.mesh import MeshGroup, mesh_program, random_mesh_shape
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
from kernels.proof.server_kernels import MESH_SCHEDULES, MESH_SMALL
from kernels.proof.server_proof import (
    run_reopened,
    run_server_schedules,
    run_server_sweep,
    traffic,
    window_cases,
)
from kernels.proof.simulator import Schedule
from kernels.proof.tally import Tally

pytestmark = pytest.mark.usefixtures("proof_library")

DEVICE = Path(__file__).parents[2] / "kernels/device/mesh"


def test_golden_data_bit_for_bit():
    (case,) = mesh_golden_cases()
    assert GoldenProgram(case).problems_on_servers(Schedule(seed=2, uneven=True), cores=2) == []


def test_random_programs_equal_the_oracle():
    assert run_server_sweep(range(1000, 1006), "mesh") == Tally(passed=6)


MODES = {
    "2 servers": lambda s: s.ranks == 16,
    "few ranks on 2": lambda s: s.ranks in (4, 6),
    "4 servers": lambda s: s.ranks == 32,
    "8 servers": lambda s: s.ranks == 64,
    "fp16": lambda s: s.dtype == torch.float16,
    "int8": lambda s: s.quant and not s.smooth,
    "int8, smooth scales": lambda s: s.smooth,
    "int32 x": lambda s: s.packed,
    "token mask": lambda s: s.mask == 1,
    "pair mask": lambda s: s.mask == 2,
    "pair mask and smooth scales": lambda s: s.mask == 2 and s.smooth,
    "zero experts": lambda s: s.zero_experts,
    "copy experts": lambda s: s.copy_experts,
    "uneven BS": lambda s: s.uneven,
    "few experts chosen": lambda s: s.skewed,
    "running counts": lambda s: s.cumulative,
}


def test_the_sweep_reaches_every_mode():
    shapes = [random_mesh_shape(Random(seed)) for seed in range(400)]
    few = {name for name, has in MODES.items() if sum(map(bool, map(has, shapes))) < 3}
    assert few == set()


def test_schedules_with_two_layers_in_flight():
    number = 3 * len(MESH_SCHEDULES)
    assert run_server_schedules(range(number), "mesh") == Tally(passed=number)


def test_every_synchronisation_of_the_sources_is_reached():
    """Or a mutation would not be counted at all."""
    found = {site.split(" ")[0] for site in reached("mesh")}
    assert [site for site in written_sites("mesh") if site not in found] == []


FLAGS = sorted(
    f"kernels/device/mesh/{path.name}:{number} "
    for path in DEVICE.glob("*.h")
    for number, line in enumerate(path.read_text().splitlines(), 1)
    if ("MOE_FLAG(" in line or "MOE_SYNC_ALL(" in line) and "Watch(" not in line
)


@pytest.mark.ci
@pytest.mark.parametrize("place", FLAGS)
def test_every_dropped_flag_and_step_of_all_cores_is_noticed(place):
    """The protocol itself; scripts/prove_kernels drops the other synchronisation, too."""
    sites = [site for site in reached("mesh") if site.startswith(place)]
    assert sites
    assert [site for site in sites if not what_notices(site)] == []


def test_open_waits_for_messages_of_the_context_before():
    """As hierarchy's, whose code it is (test_hierarchy.py): every rank of another server answers."""
    case = reopened("mesh")
    assert run_reopened(range(10), "mesh") == Tally(passed=10)
    sites = case.run(Schedule(seed=0)).sites
    *_, answer = sorted(
        site for site in sites if "hierarchy/open.h" in site and site.endswith("wait")
    )
    problems = [case.run(Schedule(seed=seed), answer).problems[:1] for seed in range(5)]
    assert {problem.split(" ")[0] for found in problems for problem in found} == {"card-order"}


def test_the_window_is_what_the_stock_kernels_ask_for_but_for_a_token_or_two():
    """docs/kernels-mesh.md, section 2: room for rows is rounded up to 8."""
    cases = list(window_cases("mesh"))
    assert {case.max_batch for case in cases if case.ours > case.stock} == {1}
    assert sum(case.ours <= case.stock for case in cases) > 500


def test_every_row_crosses_once_with_few_posts():
    figures = traffic(2, "mesh")
    assert figures["dispatch"]["posts"] == 8 * 4  # rows, list, counts, tag to each rank
    assert figures["combine"]["posts"] == 8 * 3
    rows = 16 * 8 / 2 * 7168 * 2 / 1e6  # every other expert is in the other server
    for op in ("dispatch", "combine"):
        assert 0.8 * rows < figures[op]["wire_mb"] < 1.2 * rows


PROGRAM = mesh_program("failing", MESH_SMALL, 1, "dcdc")
blame_mesh = partial(blame, PROGRAM, group_type=MeshGroup)


def ends_right(blamed):
    assert (blamed.findings, blamed.deadlock, blamed.wrong) == ([], "", [])
    return blamed


def test_an_absent_rank_is_named_by_everybody():
    blamed = ends_right(blame_mesh(Schedule(seed=1), absent=(3,)))
    for rank, links in enumerate(blamed.links):
        assert links == ([] if rank == 3 else [(3, SERVER if rank < 8 else NETWORK)])


def test_a_dead_queue_pair_is_named_by_its_receiver():
    wire = dead_links(PROGRAM, {(3, 12): 2})  # the opening arrives
    blamed = ends_right(blame_mesh(Schedule(seed=3), wire=wire))
    assert blamed.links[12] == [(3, NETWORK)]
    assert {(record.op, record.reason) for record in blamed.records[12]} == {(DISPATCH, ABSENT)}
    assert all((12, NETWORK) in links for links in blamed.links[:8])


def test_other_calls_are_named():
    """Rank 11 thinks that K is another one."""
    calls = [dict(call) for call in PROGRAM.steps[0].calls]
    calls[11]["expert_ids"] = calls[11]["expert_ids"][:, :3].contiguous()
    program = replace(PROGRAM, steps=[replace(PROGRAM.steps[0], calls=calls)])
    blamed = blame(program, Schedule(seed=4), group_type=MeshGroup)
    assert (blamed.findings, blamed.deadlock) == ([], "")
    assert all((11, NETWORK) in links for links in blamed.links[:8])
