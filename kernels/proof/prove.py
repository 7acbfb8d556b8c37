"""``scripts/prove_kernels``: golden cases, random sweep, schedules, mutants and traffic; table and JSON."""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch

from ascend_moe.contract.limits import LIMITS, SHARED_EXPERTS_MAX

from .execution import execute, old_window
from .golden_programs import GoldenProgram, golden_cases
from .group import Parameters
from .mutation import run_mutants
from .programs import Program, Shape, layer_program, random_shape
from .simulator import Schedule, library
from .traffic import SHIPPED_MB, traffic_mb

LAYERS = Shape(ranks=4, max_batch=4, hidden=1024, topk=4, local_experts=2)
SCHEDULE_SHAPES = (
    (LAYERS, 4, "dcdc"),
    (replace(LAYERS, ranks=2, max_batch=3, hidden=1031), 3, "dcdc"),
    (replace(LAYERS, quant=True, comm_quant=True, mask=2), 2, "dcdc"),
    (replace(LAYERS, shared_experts=1, shared_ranks=2, uneven=True), 2, "dcdc"),
    (replace(LAYERS, quant=True, smooth=True, mask=1, dtype=torch.float16), 3, "ddocdc"),
    (replace(LAYERS, ranks=3, local_experts=3, max_batch=2), 5, "dccdcc"),
    (replace(LAYERS, ranks=2, local_experts=1, topk=2, tp=2), 3, "dcdc"),
    (replace(LAYERS, ranks=8, local_experts=1, topk=2, max_batch=1), 2, "dcdc"),
)
"""Shapes, cores and step orders of the schedules: two layers in flight, two dispatches or two combines in a row."""


class Tally:
    """Counts what went wrong and prints the first few of each kind."""

    def __init__(self) -> None:
        self.findings = self.deadlocks = self.mismatches = 0

    def add(self, name: str, problems: list[str]) -> bool:
        for problem in problems:
            if problem.startswith("deadlock"):
                self.deadlocks += 1
            elif " differs" in problem or " written" in problem:
                self.mismatches += 1
            else:
                self.findings += 1
            if self.findings + self.deadlocks + self.mismatches <= 10:
                print(f"  {name}: {problem}", flush=True)
        return not problems


def run_golden(tally: Tally, schedules: int) -> tuple[int, int]:
    """(passed, total) of the stored cases, each under several schedules."""
    cases = golden_cases()
    passed = 0
    for case in cases:
        program = GoldenProgram(case)
        good = True
        for seed in range(schedules):
            schedule = Schedule(seed=seed, uneven=seed % 2 == 1)
            good &= tally.add(case.name, program.problems(schedule, cores=(3, 8, 1)[seed % 3]))
        passed += good
    return passed, len(cases)


def run_sweep(tally: Tally, cases: int, first_seed: int = 0) -> int:
    """Random programs against the oracle; returns how many passed."""
    passed = 0
    for seed in range(first_seed, first_seed + cases):
        random = Random(seed)
        shape = random_shape(random)
        program = layer_program(
            f"sweep {seed} {shape}", shape, seed, random.choice(("dc", "dcdc", "ddoc", "dcc"))
        )
        outcome = execute(
            program,
            Schedule(
                seed=seed, uneven=random.random() < 0.5, landing_percent=random.choice((3, 30, 70))
            ),
            cores=random.choice((1, 2, 3, 4, 7, 16, 48)),
            offset=random.choice((0, 0, 1, 8, 13)),
            old_data=old_window(seed),
        )
        passed += tally.add(program.name, outcome.problems)
    return passed


def run_schedules(tally: Tally, number: int) -> int:
    """Schedules of `SCHEDULE_SHAPES`: drift, uneven speed, a stalled rank, old epochs in the windows."""
    programs = [
        (layer_program(f"schedule {index}", shape, index, order), cores)
        for index, (shape, cores, order) in enumerate(SCHEDULE_SHAPES)
    ]
    passed = 0
    for seed, (program, cores) in zip(range(number), _cycle(programs), strict=False):
        passed += tally.add(f"{program.name} seed {seed}", _one_schedule(program, cores, seed))
    return passed


def _cycle(programs: list[tuple[Program, int]]) -> Iterator[tuple[Program, int]]:
    while True:
        yield from programs


def _one_schedule(program: Program, cores: int, seed: int) -> list[str]:
    random = Random(seed)
    schedule = Schedule(
        seed=seed,
        landing_percent=random.choice((1, 5, 30, 70, 95)),
        uneven=random.random() < 0.7,
        stalled_rank=random.choice((-1, *range(program.ranks))),
        stall_from=random.choice((0, random.randrange(3000))),
        stall_steps=random.choice((100, 1000, 5000)),
    )
    return execute(program, schedule, cores=cores, old_data=old_window(seed)).problems


def window_mb_worst_case() -> float:
    """The largest window in MiB that a legal A3 call without TP can need."""
    limits = LIMITS["cann-9.1", "A3"].paths["fullmesh"]
    worst = 0
    for ranks in range(limits.ep_sizes.low, limits.ep_sizes.high + 1):
        given = Parameters(
            max_batch=limits.batch_max,
            hidden=limits.hidden_max,
            topk=limits.topk_max,
            local_experts=max(1, limits.local_times_ep_max // ranks),
            shared_experts=SHARED_EXPERTS_MAX,
            quant=True,
            smooth=True,
        )
        dispatch = library().moe_dispatch_bytes(ctypes.byref(given), ranks)
        worst = max(
            worst,
            library().moe_window_bytes(dispatch, library().moe_combine_bytes(ctypes.byref(given))),
        )
    return worst / 2**20


def prove(*, quick: bool) -> tuple[dict[str, Any], bool]:
    """Runs everything; (the JSON record, whether all of it held)."""
    tally = Tally()
    start = time.monotonic()

    def done(what: str) -> None:
        print(f"{time.monotonic() - start:6.1f} s  {what}", flush=True)

    passed, total = run_golden(tally, 2 if quick else 6)
    done(f"golden: {passed} of {total} bit-exact")
    sweep = 60 if quick else 400
    swept = run_sweep(tally, sweep)
    done(f"sweep: {swept} of {sweep} programs equal to the oracle")
    number = 280 if quick else 1400
    scheduled = run_schedules(tally, number)
    done(f"schedules: {scheduled} of {number} without finding, deadlock or difference")
    caught, runs = run_mutants()
    survivors = [site for site, how in caught.items() if not how]
    done(f"mutants: {len(caught) - len(survivors)} of {len(caught)} noticed in {runs} runs")
    for site in survivors:
        print(f"  not noticed: {site}")
    moved, floor = traffic_mb()
    for name, value in moved.items():
        done(
            f"traffic {name}: {value:.2f} MB, floor {floor[name]:.2f}, shipped {SHIPPED_MB[name]:.2f}"
        )
    record = {
        "golden_passed": passed,
        "golden_total": total,
        "sweep_cases": sweep,
        "schedules": number,
        "findings": tally.findings,
        "deadlocks": tally.deadlocks,
        "mutations_caught": len(caught) - len(survivors),
        "mutations_total": len(caught),
        "traffic_mb": {name: round(value, 3) for name, value in moved.items()},
        "floor_mb": {name: round(value, 3) for name, value in floor.items()},
        "window_mb_worst_case": round(window_mb_worst_case(), 2),
        "estimate_us": None,
    }
    held = passed == total and swept == sweep and scheduled == number
    return record, held


def main() -> int:
    """The command; exit code 1 if anything did not hold."""
    parser = argparse.ArgumentParser(prog="scripts/prove_kernels", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--quick", action="store_true", help="the bounded part that the tests run")
    given = parser.parse_args()
    torch.set_num_threads(1)
    record, held = prove(quick=given.quick)
    if given.json:
        given.json.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
