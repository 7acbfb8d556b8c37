"""The device kernels inside hostsim: the bounded part of scripts/prove_kernels, and edges."""

import re
from pathlib import Path
from random import Random

import pytest
import torch

from kernels.proof.execution import execute, old_window
from kernels.proof.golden_programs import GoldenProgram, golden_cases
from kernels.proof.mutation import reached, what_notices
from kernels.proof.programs import Layers, Program, layer_program
from kernels.proof.prove import (
    SCHEDULE_SHAPES,
    SCHEDULE_SHAPES_A2,
    run_schedules,
    run_sweep,
)
from kernels.proof.shapes import Shape, random_shape, random_shape_a2
from kernels.proof.simulator import Schedule
from kernels.proof.tally import Tally
from kernels.proof.traffic import traffic_mb

pytestmark = pytest.mark.usefixtures("proof_library")

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("case", "cores"),
    [(case, cores) for cores in (1, 3, 8) for case in golden_cases()]
    + [(case, cores) for cores in (1, 5) for case in golden_cases("A2")],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_golden_data_bit_for_bit(case, cores):
    """On A2 rows, counts and sums: the handle is ours."""
    assert GoldenProgram(case).problems(Schedule(seed=cores, uneven=True), cores=cores) == []


def test_random_programs_equal_the_oracle():
    assert run_sweep(range(1000, 1040)) == Tally(passed=40)


def test_random_programs_of_one_a2_server():
    assert run_sweep(range(2000, 2016), "A2") == Tally(passed=16)


MODES_A2 = {
    "packed": lambda s: s.packed,
    "packed, uneven BS": lambda s: s.packed and s.uneven,
    "packed, token mask": lambda s: s.packed and s.mask == 1,
    "packed, pair mask": lambda s: s.packed and s.mask == 2,
    "packed, strided": lambda s: s.packed and s.strided,
    "int8": lambda s: s.quant and not s.smooth,
    "smooth scales": lambda s: s.smooth,
    "zero experts": lambda s: s.zero_experts,
    "copy experts": lambda s: s.copy_experts,
    "8 ranks": lambda s: s.ranks == 8,
    "H = 32": lambda s: s.hidden == 32,
    "H = 7168": lambda s: s.hidden == 7168,
}


def test_the_sweep_of_a2_reaches_every_mode():
    shapes = [random_shape_a2(Random(seed)) for seed in range(200)]
    few = {
        name: number
        for name, has in MODES_A2.items()
        if (number := sum(map(bool, map(has, shapes)))) < 4
    }
    assert few == {}
    absent = ("shared_experts", "const_experts", "comm_quant", "shared_x")
    assert not any(getattr(shape, name) for shape in shapes for name in absent)
    assert all(shape.hidden % 32 == 0 and shape.tp == 1 for shape in shapes)


MODES = {
    "fp16": lambda s: s.dtype == torch.float16,
    "int8": lambda s: s.quant and not s.smooth,
    "smooth scales": lambda s: s.smooth,
    "smooth scales of shared experts": lambda s: s.smooth and s.shared_experts,
    "shared expert": lambda s: s.shared_experts == 1,
    "two shared experts": lambda s: s.shared_experts == 2,
    "replicas": lambda s: s.shared_ranks > s.shared_experts,
    "token mask": lambda s: s.mask == 1,
    "pair mask": lambda s: s.mask == 2,
    "pair mask, int8": lambda s: s.mask == 2 and s.quant,
    "pair mask, shared expert": lambda s: s.mask == 2 and s.shared_experts,
    "uneven BS": lambda s: s.uneven,
    "running counts": lambda s: s.cumulative,
    "counts": lambda s: not s.cumulative,
    "shared_expert_x": lambda s: s.shared_x,
    "int8 combine": lambda s: s.comm_quant,
    "zero experts": lambda s: s.zero_experts,
    "copy experts": lambda s: s.copy_experts,
    "const experts": lambda s: s.const_experts,
    "const experts, int8 combine": lambda s: s.const_experts and s.comm_quant,
    "TP": lambda s: s.tp == 2 and not s.quant,
    "TP, int8": lambda s: s.tp == 2 and s.quant,
    "TP, pair mask": lambda s: s.tp == 2 and s.mask == 2,
    "TP, shared expert": lambda s: s.tp == 2 and s.shared_experts,
    "K > 12": lambda s: s.topk > 12,
    "K = 1": lambda s: s.topk == 1,
    "H not aligned": lambda s: s.hidden % 16,
    "H = 8192": lambda s: s.hidden == 8192,
    "few experts chosen": lambda s: s.skewed,
}


def test_the_sweep_reaches_every_mode():
    """Those of run_sweep, whose shape is the first thing that is drawn for a seed."""
    shapes = [random_shape(Random(seed)) for seed in range(400)]
    few = {
        name: number
        for name, has in MODES.items()
        if (number := sum(map(bool, map(has, shapes)))) < 5
    }
    assert few == {}


def test_schedules_with_two_layers_in_flight():
    number = 40 * len(SCHEDULE_SHAPES)
    assert run_schedules(range(number)) == Tally(passed=number)


def test_schedules_of_one_a2_server():
    number = 10 * len(SCHEDULE_SHAPES_A2)
    assert run_schedules(range(number), "A2") == Tally(passed=number)


SITE = re.compile(
    r"MOE_(SYNC|VBARRIER|SYNC_ALL|FLAG)\(|(PipeBarrier|SyncAll|SetFlag|WaitFlag|AllocTensor|DeQue|DataCacheCleanAndInvalid)<"
)


def test_every_synchronisation_of_the_sources_is_reached():
    """Or a mutation would not be counted at all."""
    found = {site.split(" ")[0] for site in (*reached(), *reached("A2"))}
    for path in sorted((ROOT / "kernels/device").glob("*.h")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if (
                SITE.search(line.split("//")[0])
                and not re.search(r"(Pause|Watch)\(", line)
                and path.name != "shim.h"
            ):
                assert f"kernels/device/{path.name}:{number}" in found


SOURCES = sorted(path.name for path in (ROOT / "kernels/device").glob("*.h"))
# What may go, or is seldom noticed, and why, is said there.
EXPLAINED = {
    "combine.h": ["barrier"],
    "dispatch.h": ["SyncAll"],
    "stage.h": ["queue"],
    "window.h": ["event"],
    "waited.h": ["event"],
    "measure.h": ["SyncAll", "barrier", "SyncAll"],
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_dropped_synchronisation_is_noticed(source):
    sites = [site for site in reached() if site.startswith(f"kernels/device/{source}:")]
    survivors = [site.split(" ")[1] for site in sites if not what_notices(site)]
    assert survivors in ([], EXPLAINED.get(source, []))


@pytest.mark.ci
def test_every_dropped_synchronisation_that_a2_reaches_is_noticed_there():
    sites = reached("A2")
    assert len(sites) > 110
    survivors = [site for site in sites if not what_notices(site, "A2")]
    # What both products reach, the cases of one may leave to those of the other.
    explained = {name: list(kinds) for name, kinds in EXPLAINED.items()}
    for site in survivors:
        if site not in reached() or not what_notices(site):
            explained[re.split(r"[/:]", site)[-2]].remove(site.split(" ")[1])


def test_the_sites_are_those_of_the_sources():
    files = {re.split(r"[/:]", site)[-2] for site in reached()}
    assert files <= set(SOURCES)
    assert len(reached()) > 190


def test_traffic_of_a2_is_near_the_floor():
    moved, floor = traffic_mb("A2")
    assert set(moved) == {"dispatch_bf16", "dispatch_int8", "dispatch_int4", "combine"}
    assert moved["dispatch_int4"] < moved["dispatch_int8"] < moved["dispatch_bf16"]
    assert all(moved[name] < 1.06 * floor[name] for name in moved)


def test_traffic_is_below_the_shipped_kernels():
    moved, floor = traffic_mb()
    assert moved["dispatch_bf16"] < 4.5
    assert moved["dispatch_int8"] < 2.6
    assert moved["combine"] < 5.2
    assert all(moved[name] < 1.03 * floor[name] for name in moved)


@pytest.mark.parametrize(
    "shape",
    [
        Shape(
            ranks=2, max_batch=512, hidden=1024, topk=16, local_experts=16, quant=True, smooth=True
        ),
        Shape(ranks=2, max_batch=512, hidden=1024, topk=16, local_experts=16, mask=2),
        Shape(
            ranks=16,
            max_batch=2,
            hidden=1024,
            topk=8,
            local_experts=2,
            shared_experts=4,
            shared_ranks=8,
        ),
        Shape(ranks=2, max_batch=4, hidden=8192, topk=4, local_experts=256, comm_quant=True),
        Shape(ranks=4, max_batch=16, hidden=7168, topk=8, local_experts=8, dtype=torch.float16),
    ],
    ids=["smooth-512x16", "mask-512x16", "16-ranks-shared", "512-experts-8192", "7168-fp16"],
)
def test_large_shapes(shape):
    assert execute(layer_program("large", shape, 5), Schedule(seed=5), cores=48).problems == []


def test_output_rows_of_inactive_tokens_are_zero():
    shape = Shape(ranks=2, max_batch=6, hidden=1031, topk=2, local_experts=2, mask=1)
    program = layer_program("masked", shape, 3)
    active = program.steps[0].calls[0]["x_active_mask"].sum()
    assert active < 6
    assert not program.steps[1].expected[0][active:].any()
    assert execute(program, Schedule(seed=3), cores=4).problems == []


@pytest.mark.parametrize("hidden", [1024, 1031, 1999, 7168, 8192])
def test_const_experts_blend_by_the_softmax_of_their_scores(hidden):
    """Bit for bit: the order of the scores' sums is defined in ascend_moe/reference/combine.py."""
    shape = Shape(
        ranks=2, max_batch=8, hidden=hidden, topk=4, local_experts=2, const_experts=6, shared_x=True
    )
    for seed in range(4):
        program = layer_program("const", shape, seed)
        assert execute(program, Schedule(seed=seed), cores=3).problems == []


def test_layers_of_different_shapes_share_a_group():
    """The window layout must not depend on the shape of one call."""
    first = Shape(ranks=3, max_batch=4, hidden=2048, topk=4, local_experts=2, quant=True)
    second = Shape(
        ranks=3, max_batch=4, hidden=1024, topk=3, local_experts=2, quant=True, smooth=True
    )
    program = Program("shapes", first.contract)
    for seed, shape in enumerate((first, second, first, second)):
        layers = Layers(shape, seed)
        number = program.dispatch(layers.dispatch())
        step = program.steps[number]
        program.combine(layers.combine(step.calls, step.expected), number)
    for seed in range(8):
        schedule = Schedule(seed=seed, uneven=True, stalled_rank=seed % 3, stall_steps=2000)
        assert execute(program, schedule, cores=3, old_data=old_window(seed)).problems == []


def test_device_sources_include_only_ascendc_and_each_other():
    files = [path for path in (ROOT / "kernels/device").rglob("*") if path.is_file()]
    others = {
        name
        for path in files
        for name in re.findall(r'#include [<"](.+?)[>"]', path.read_text())
        if (path.parent / name).resolve() not in files
    }
    assert others == {"kernel_operator.h"}
    switches = {
        path: re.findall(r"^#if.*", path.read_text(), re.M)
        for path in files
        if path.name != "shim.h"
    }
    assert {path: found for path, found in switches.items() if found} == {
        ROOT / "kernels/device/abi.h": ["#ifndef MOE_ABI"]
    }
