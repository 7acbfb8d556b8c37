"""Drops one synchronisation site at a time: a checker or a schedule that does not notice proves nothing.

A site is a source line of ``kernels/device`` with an event, a barrier, a SyncAll or a queue step.
The simulator skips it by its place, so one build serves all mutants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from .execution import execute, old_window
from .programs import Program, Shape, layer_program
from .simulator import Schedule

SMALL = Shape(ranks=4, max_batch=5, hidden=1031, topk=4, local_experts=3)
SHARED = replace(SMALL, local_experts=2, shared_experts=1, shared_ranks=2)


def programs() -> Iterator[tuple[Program, int]]:
    """Programs that together reach every site, with a number of cores each; small ones first."""
    shapes = (
        (SMALL, 3, "ddoc"),
        (replace(SMALL, quant=True, mask=1, comm_quant=True), 2, "dcc"),
        (replace(SHARED, quant=True, smooth=True, mask=2), 2, "dcc"),
        (replace(SHARED, quant=True, smooth=True, dtype=torch.float16), 1, "dc"),
        (replace(SHARED, mask=2, comm_quant=True), 1, "dcc"),
        (replace(SHARED, shared_experts=2, mask=2), 2, "dc"),
        (replace(SMALL, topk=8, zero_experts=1, copy_experts=2, const_experts=3), 2, "dc"),
        (replace(SMALL, topk=8, copy_experts=1, const_experts=3, comm_quant=True), 1, "dc"),
        (replace(SHARED, ranks=5, max_batch=1, topk=1, local_experts=3), 1, "dc"),
        (replace(SMALL, ranks=2, max_batch=1, quant=True), 1, "dc"),
        (replace(SMALL, topk=2, local_experts=1, tp=2, quant=True), 2, "dcc"),
        (replace(SMALL, ranks=2, max_batch=9, topk=2, local_experts=1, tp=2), 1, "dcdc"),
        (
            replace(
                SMALL,
                ranks=2,
                max_batch=160,
                hidden=1024,
                topk=2,
                local_experts=1,
                tp=2,
                quant=True,
            ),
            1,
            "dc",
        ),
        (replace(SMALL, ranks=3, max_batch=2, mask=1), 4, "dccdcc"),
        (replace(SMALL, ranks=2, max_batch=1, topk=1, local_experts=1, tp=2), 3, "ddddd"),
        (replace(SMALL, ranks=2, max_batch=200, hidden=1024, local_experts=4, quant=True), 1, "dc"),
        (replace(SMALL, ranks=2, max_batch=160, hidden=1024, local_experts=4), 2, "dc"),
    )
    for number, (shape, cores, order) in enumerate(shapes):
        yield layer_program(f"mutation {number}", shape, number, order), cores


def schedules() -> Iterator[Schedule]:
    """Uneven and stalled ranks, early and in the middle; most mutants fall to the first."""
    for seed in range(1, 41):
        yield Schedule(
            seed=seed,
            landing_percent=(3, 30, 70)[seed % 3],
            uneven=seed % 2 == 0,
            stalled_rank=seed % 5 - 1,
            stall_from=40 * (seed - 1),
            stall_steps=3000,
            max_steps=300_000,  # a mutant may poll for ever; the programs need a tenth of it
        )


def run_mutants() -> tuple[dict[str, str], int]:
    """For every site that programs reach, what noticed its absence (empty: nothing); and the number of runs."""
    cases = list(programs())
    reached: dict[str, list[tuple[Program, int]]] = {}
    runs = 0
    for program, cores in cases:
        outcome = execute(program, next(schedules()), cores=cores)
        runs += 1
        if outcome.problems:
            raise AssertionError(f"{program.name} fails without a mutation: {outcome.problems[0]}")
        for site in outcome.sites:
            if "/device/" in site:
                reached.setdefault(site, []).append((program, cores))
    caught: dict[str, str] = {}
    for site, users in sorted(reached.items()):
        caught[site] = ""
        for schedule in schedules():
            for program, cores in users:
                runs += 1
                problems = execute(
                    program, schedule, cores=cores, mutate=site, old_data=old_window(schedule.seed)
                ).problems
                if problems:
                    caught[site] = problems[0].split(" ", 1)[0]
                    break
            if caught[site]:
                break
    return caught, runs
