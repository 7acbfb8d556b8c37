"""``scripts/prove_kernels``: golden cases, random sweep, schedules, mutants and traffic; table and JSON."""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import torch

from ascend_moe.contract.limits import LIMITS, SHARED_EXPERTS_MAX

from .arguments import Parameters
from .card_runs import CardRuns
from .execution import execute, old_window
from .golden_programs import GoldenProgram, golden_cases
from .mutation import reached, what_notices
from .programs import Program, layer_program
from .server_proof import ServerProof
from .shapes import Shape, random_shape, random_shape_a2
from .simulator import Schedule, library
from .survivor_proof import SurvivorProof
from .tally import Tally, chunks
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
    # Most cores have no row to exchange, so they may be a launch ahead of the TP peer's.
    (replace(LAYERS, ranks=2, local_experts=1, topk=1, max_batch=2, tp=2, quant=True), 6, "dccddc"),
)
"""Shapes, cores and step orders of the schedules: two layers in flight, two dispatches or two combines in a row."""
LAYERS_A2 = replace(LAYERS, hidden=96, product="A2")
SCHEDULE_SHAPES_A2 = (
    (replace(LAYERS_A2, ranks=8, local_experts=1, topk=2, max_batch=2), 2, "dcdc"),
    (replace(LAYERS_A2, packed=True, uneven=True), 3, "ddocdc"),
    (replace(LAYERS_A2, quant=True, smooth=True, mask=2, dtype=torch.float16), 3, "dcdc"),
    (replace(LAYERS_A2, ranks=3, local_experts=3, packed=True, mask=1), 5, "dccdcc"),
    (replace(LAYERS_A2, ranks=2, zero_experts=1, copy_experts=1, quant=True), 4, "dcdc"),
)
"""The same for one A2 server."""


def run_golden(schedules: int, product: str = "A3") -> Tally:
    """The stored cases of a product, each under several schedules."""
    tally = Tally()
    for case in golden_cases(product):
        program, problems = GoldenProgram(case), []
        for seed in range(schedules):
            schedule = Schedule(seed=seed, uneven=seed % 2 == 1)
            problems += program.problems(schedule, cores=(3, 8, 1)[seed % 3])
        tally.add(case.name, problems)
    return tally


def run_sweep(seeds: range, product: str = "A3") -> Tally:
    """Random programs against the oracle."""
    tally = Tally()
    for seed in seeds:
        random = Random(seed)
        shape = random_shape_a2(random) if product == "A2" else random_shape(random)
        program = layer_program(
            f"sweep {seed} {shape}", shape, seed, random.choice(("dc", "dcdc", "ddoc", "dcc"))
        )
        outcome = execute(
            program,
            Schedule(
                seed=seed, uneven=random.random() < 0.5, landing_percent=random.choice((3, 30, 70))
            ),
            cores=random.choice((1, 2, 3, 4, 7, 16, 48)),
            varying=random.random() < 0.3,
            offset=random.choice((0, 0, 1, 8, 13)),
            old_data=old_window(seed),
        )
        tally.add(program.name, outcome.problems)
    return tally


def schedule_shapes(product: str) -> tuple[tuple[Shape, int, str], ...]:
    return SCHEDULE_SHAPES_A2 if product == "A2" else SCHEDULE_SHAPES


@cache
def schedule_programs(product: str) -> list[Program]:
    """One for each of `SCHEDULE_SHAPES`."""
    return [
        layer_program(f"schedule {index} {product}", shape, index, order)
        for index, (shape, _, order) in enumerate(schedule_shapes(product))
    ]


def run_schedules(seeds: range, product: str = "A3") -> Tally:
    """Schedules of `SCHEDULE_SHAPES` in turn: drift, uneven speed, a stalled rank, old epochs in the windows."""
    tally, programs = Tally(), schedule_programs(product)
    for seed in seeds:
        index = seed % len(programs)
        problems = _one_schedule(programs[index], schedule_shapes(product)[index][1], seed)
        tally.add(f"{programs[index].name} seed {seed}", problems)
    return tally


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
    varying = random.random() < 0.3
    return execute(
        program, schedule, cores=cores, varying=varying, old_data=old_window(seed)
    ).problems


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


@dataclass(frozen=True)
class Amount:
    """How much is proven."""

    golden_schedules: int
    sweep: int
    schedules: int


AMOUNTS = {  # by product: bounded, as the tests do it, and whole
    "A3": (Amount(2, 60, 315), Amount(6, 400, 10_800)),
    "A2": (Amount(2, 20, 50), Amount(6, 200, 2_000)),
}


class Proof:
    """The parts of a proof for one product, started in a pool and then waited for."""

    def __init__(self, product: str, amount: Amount, pool: ProcessPoolExecutor) -> None:
        self.product, self.amount = product, amount
        self.total = len(golden_cases(product))
        self._golden = pool.submit(run_golden, amount.golden_schedules, product)
        self._swept = [pool.submit(run_sweep, seeds, product) for seeds in chunks(amount.sweep, 50)]
        self._scheduled = [
            pool.submit(run_schedules, seeds, product) for seeds in chunks(amount.schedules, 100)
        ]
        self.sites = sorted(reached(product))
        self._noticed = [pool.submit(what_notices, site, product) for site in self.sites]

    def figures(self, done: Callable[[str, Tally | None], None]) -> tuple[dict[str, Any], bool]:
        """For the record, and whether nothing was found."""
        golden, total, amount = self._golden.result(), self.total, self.amount
        done(f"golden: {golden.passed} of {total} bit-exact", golden)
        swept = sum((run.result() for run in self._swept), Tally())
        done(f"sweep: {swept.passed} of {amount.sweep} programs equal to the oracle", swept)
        scheduled = sum((run.result() for run in self._scheduled), Tally())
        done(
            f"schedules: {scheduled.passed} of {amount.schedules} without finding, deadlock or difference",
            scheduled,
        )
        noticed = zip(self.sites, self._noticed, strict=True)
        self.survivors = [site for site, how in noticed if not how.result()]
        sites, survivors = len(self.sites), len(self.survivors)
        done(f"mutants: {sites - survivors} of {sites} noticed", None)
        for site in self.survivors:
            print(f"  not noticed: {site}")
        everything = golden + swept + scheduled
        return {
            "golden_passed": golden.passed,
            "golden_total": total,
            "sweep_cases": amount.sweep,
            "schedules": amount.schedules,
            "findings": everything.findings,
            "deadlocks": everything.deadlocks,
            "mutations_caught": sites - survivors,
            "mutations_total": sites,
        }, not everything.examples


def prove(*, quick: bool) -> tuple[dict[str, Any], bool]:
    """Runs everything, in two processes; (the JSON record, whether all of it held)."""
    start = time.monotonic()

    def done(what: str, tally: Tally | None = None) -> None:
        print(f"{time.monotonic() - start:6.1f} s  {what}", flush=True)
        for example in tally.examples if tally else ():
            print(f"  {example}", flush=True)

    for product in AMOUNTS:  # once, before the fork
        schedule_programs(product), reached(product)
    figures, all_held = {}, True
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        proofs = [
            Proof(product, amounts[0 if quick else 1], pool) for product, amounts in AMOUNTS.items()
        ]
        servers = ServerProof(pool, quick=quick)
        survivors = SurvivorProof(pool, quick=quick)
        card = CardRuns(pool, *((2000, 200) if quick else (100_000, 10_000)))
        for proof in proofs:
            figures[proof.product], held = proof.figures(
                lambda what, tally=None, name=proof.product: done(f"{name} {what}", tally)
            )
            all_held = all_held and held
        carried = Tally()
        figures["A2"]["card"] = card.record(carried, proofs[0].sites, proofs[0].survivors)
        done(f"network card: {figures['A2']['card']}", carried)
        hierarchy, held = servers.figures(done)
        all_held = all_held and held
        left, held = survivors.figures(done)
        all_held = all_held and held
    for product, of_product in figures.items():
        moved, floor = traffic_mb(product)
        for name, value in moved.items():
            shipped = f", shipped {SHIPPED_MB[name]:.2f}" if product == "A3" else ""
            done(f"{product} traffic {name}: {value:.2f} MB, floor {floor[name]:.2f}{shipped}")
        of_product["traffic_mb"] = {name: round(value, 3) for name, value in moved.items()}
        of_product["floor_mb"] = {name: round(value, 3) for name, value in floor.items()}
    record = figures["A3"] | {
        "window_mb_worst_case": round(window_mb_worst_case(), 2),
        "a2": figures["A2"],
        "hierarchy": hierarchy,
        "ranks_left": left,
    }
    return record, all_held and not carried.examples


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
