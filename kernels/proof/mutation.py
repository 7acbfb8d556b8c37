"""Drops one synchronisation site at a time: a checker or a schedule that does not notice proves nothing.

A site is a source line of ``kernels/device`` with an event, a barrier, a SyncAll, a queue step, or a flag between ranks
that is posted or waited for. The simulator skips it by its place, so one build serves all mutants.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

import torch

from ascend_moe.contract.elastic import Elastic

from .cards import Wire
from .execution import Outcome, execute, old_window
from .failures import LateCase, UnequalCase
from .ping_pong import PingPongCase
from .programs import Program, layer_program
from .shapes import Shape
from .simulator import Schedule
from .small_cases import CoresCase, MeasureCase, MeetingCase, PackCase, RowCase, TellCase
from .survivors import LeftCase, RetiredCase, program_left
from .waits import WaitsCase

SMALL = Shape(ranks=4, max_batch=5, hidden=1031, topk=4, local_experts=3)
SHARED = replace(SMALL, local_experts=2, shared_experts=1, shared_ranks=2)


class Case(Protocol):
    """Something to run under a schedule, whole or without one site."""

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run."""
        ...


@dataclass(frozen=True)
class ProgramCase:
    """A program and on how many cores it runs."""

    program: Program
    cores: int

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given."""
        return execute(
            self.program,
            schedule,
            cores=self.cores,
            mutate=site,
            old_data=old_window(schedule.seed) if site else b"",
        )


def cases_a2() -> Iterator[Case]:
    """Of one A2 server: small H, packed rows; they reach all sites but those of shared experts, int8 combine and TP."""
    a2 = replace(SMALL, hidden=96, product="A2")
    shapes = (
        (replace(a2, packed=True), 3, "ddoc"),
        (replace(a2, packed=True, mask=1, ranks=3, max_batch=2), 4, "dccdcc"),
        (replace(a2, quant=True, smooth=True, mask=2), 2, "dcc"),
        (replace(a2, quant=True, smooth=True, dtype=torch.float16), 1, "dc"),
        (a2, 3, "ddoc"),
        (replace(a2, topk=8, zero_experts=1, copy_experts=2), 2, "dc"),
        (replace(a2, ranks=2, max_batch=200, local_experts=4, packed=True), 1, "dc"),
        (replace(a2, ranks=2, max_batch=24, topk=1, quant=True, smooth=True, mask=2), 1, "d"),
        (replace(a2, ranks=2, max_batch=200, hidden=1024, local_experts=4, quant=True), 1, "dc"),
        (replace(a2, ranks=2, max_batch=160, local_experts=4, strided=True), 2, "dc"),
        (replace(a2, quant=True, measured=True), 3, "dccd"),
        (replace(a2, ranks=2, max_batch=80, measured=True), 1, "dcc"),
    )
    yield MeetingCase(ranks=4, cores=2)
    yield MeetingCase(ranks=2, cores=1, old_data=False)
    for number, (shape, cores, order) in enumerate(shapes):
        yield ProgramCase(layer_program(f"A2 mutation {number}", shape, number, order), cores)
    apart = replace(a2, topk=1, local_experts=1, measured=True)
    yield WaitsCase(layer_program("A2 waits", apart, 3), cores=5, late_rank=1, late_step=1)
    late = replace(a2, ranks=2, max_batch=16, local_experts=2, packed=True)
    yield LateCase(layer_program("A2 late", late, 2, "dccc"), 3)


def cases(product: str = "A3") -> Iterator[Case]:
    """Programs that together reach every site; small ones first."""
    if product == "A2":
        yield from cases_a2()
        return
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
        # Tokens of which nothing is sent, one behind the other: no wait between their loads.
        (
            replace(SMALL, ranks=2, max_batch=24, topk=1, quant=True, smooth=True, mask=2),
            1,
            "d",
        ),
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
        (replace(SMALL, ranks=2, max_batch=40, mask=2, strided=True), 1, "dc"),
        (replace(SMALL, ranks=2, max_batch=1, topk=1, local_experts=1, tp=2), 3, "ddddd"),
        (replace(SMALL, ranks=2, max_batch=200, hidden=1024, local_experts=4, quant=True), 1, "dc"),
        (replace(SMALL, ranks=2, max_batch=160, hidden=1024, local_experts=4), 2, "dc"),
        # More ranks, and more of their blocks, than a core looks at at once.
        (replace(SMALL, ranks=9, max_batch=1, local_experts=41, measured=True), 1, "dccd"),
        (replace(SMALL, ranks=2, max_batch=80, hidden=1024, measured=True), 1, "dcc"),
    )
    yield MeetingCase(ranks=4, cores=2)
    yield MeetingCase(ranks=2, cores=1, old_data=False)
    yield MeetingCase(ranks=4, cores=2, gone=(1,))
    yield TellCase(ranks=5, cores=2)
    yield TellCase(ranks=3, cores=1, words=8)
    elastic = Elastic(140, 0, 3 * SMALL.local_experts, (7, 139, 70))  # many words
    left = program_left("left", replace(SMALL, ranks=140, max_batch=2), elastic, 1, "dc")
    yield LeftCase(left, elastic, 2)
    yield RetiredCase(layer_program("retired", SMALL, 1, "dc"), 2)
    yield CoresCase(cores=5)
    yield RowCase(ranks=3)
    yield MeasureCase(cores=3)
    yield PingPongCase(Wire(depth=4), turns=6, burst=6, bytes=700)
    yield PingPongCase(Wire(depth=16, queues=2, head=0xFFFFFFF0), turns=6, burst=3, bytes=5000)
    yield PackCase(torch.arange(40_000).view(4, 10_000)[:, :9000], cores=1)
    yield PackCase(torch.arange(6000, dtype=torch.int16).view(3, 2000)[:, ::2], cores=1)
    for number, (shape, cores, order) in enumerate(shapes):
        yield ProgramCase(layer_program(f"mutation {number}", shape, number, order), cores)
    pair = replace(SMALL, ranks=2, max_batch=2, topk=1, local_experts=1, tp=2)
    for order in ("d", "dc"):
        yield UnequalCase(layer_program("unequal", pair, 1, order), (3, 2, 4, 1))
    # Each core waits for one rank, so that few of them know of the late one.
    apart = replace(SMALL, hidden=1024, topk=1, local_experts=1, measured=True)
    yield WaitsCase(layer_program("waits", apart, 3), cores=5, late_rank=1, late_step=1)
    late = replace(SMALL, ranks=2, max_batch=16, local_experts=2)
    for shape, order in ((late, "dccc"), (pair, "dcdc")):
        yield LateCase(layer_program("late", shape, 2, order), 3)


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


def reached(product: str = "A3") -> dict[str, list[Case]]:
    """Every site of ``kernels/device`` that a case of the product reaches, with these cases."""
    return _reached(product)


@cache
def _reached(product: str) -> dict[str, list[Case]]:
    return cases_by_site(cases(product))


def cases_by_site(cases: Iterable[Case]) -> dict[str, list[Case]]:
    """Every site of ``kernels/device`` that a case reaches, with those that do."""
    sites: dict[str, list[Case]] = {}
    for case in cases:
        outcome = case.run(next(schedules()))
        if outcome.problems:
            raise AssertionError(f"{case} fails without a mutation: {outcome.problems[0]}")
        for site in outcome.sites:
            if "/device/" in site:
                sites.setdefault(site, []).append(case)
    return sites


def what_notices(site: str, product: str = "A3") -> str:
    """The first word of what notices the absence of a site; empty if nothing does."""
    return first_to_notice(site, reached(product)[site])


def first_to_notice(site: str, cases: Sequence[Case]) -> str:
    """The same among these cases."""
    for schedule in schedules():
        for case in cases:
            problems = case.run(schedule, site).problems
            if problems:
                return problems[0].split(" ", 1)[0]
    return ""
