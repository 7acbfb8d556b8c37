"""The part of ``prove.py`` about ranks that are gone: sweep, deaths at every kind of point, mutants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any

from ascend_moe.contract.elastic import Elastic

from .mutation import Case, cases_by_site, first_to_notice
from .shapes import Shape, random_shape
from .simulator import Schedule
from .small_cases import MeetingCase
from .survivors import DeathCase, LeftCase, death_case, program_left
from .tally import Tally, chunks

LAYERS = Shape(ranks=4, max_batch=3, hidden=1031, topk=3, local_experts=2)
SHARED = replace(LAYERS, ranks=6, shared_experts=1, shared_ranks=2)
DEATHS: tuple[tuple[Shape, tuple[int, ...], str, int], ...] = (
    (LAYERS, (3,), "dcdc", 3),
    (replace(LAYERS, max_batch=16), (0,), "dccdcc", 2),
    (replace(LAYERS, quant=True, comm_quant=True, mask=2), (2, 1), "dcc", 2),
    (replace(SHARED, uneven=True), (0, 4), "ddoc", 3),
    (replace(SHARED, quant=True, smooth=True, mask=1), (5, 1, 3), "dcdc", 1),
    (replace(LAYERS, ranks=3, zero_experts=1, copy_experts=2, const_experts=1), (1,), "dcc", 4),
)
"""Shape, who dies in this order, steps of every program, cores."""
POINTS = {
    "meeting and opening": ("ascend_moe_meet", "ascend_moe_open"),
    "before publishing": ("dispatch.h", "stage.h", "elastic.h", "at its beginning"),
    "between counts and rows": (
        "publish.h",
        "receive.h",
        "slot_walk.h",
        "list_parts.h",
        "pull.h",
        "describe.h",
    ),
    "in a combine": ("ascend_moe_combine",),
    "in a wait or a flag": ("window.h",),
}
"""Kinds of points by what the place of a death contains; the first that fits counts."""


def random_left(random: Random) -> tuple[Shape, Elastic]:
    """A legal shape and who is left of it, in any order; ranks may have changed to the other kind."""
    while True:
        shape = random_shape(random)
        left = random.sample(range(shape.ranks), random.randint(1, shape.ranks))
        if random.random() < 0.5:
            left.sort()
        # As many MoE experts as before at most.
        least = max(shape.shared_experts, len(left) - shape.ranks + shape.shared_ranks)
        step = max(shape.shared_experts, 1)
        shared = [number for number in range(least, len(left)) if number % step == 0]
        if shape.tp == 1 and shared:
            break
    of_shared = random.choice(shared) if shape.shared_experts else 0
    experts = (len(left) - of_shared) * shape.local_experts
    elastic = Elastic(shape.ranks, of_shared, experts, tuple(left))
    return replace(shape, topk=min(shape.topk, experts)), elastic


def run_left_sweep(seeds: range) -> Tally:
    """Random programs of random ranks that are left, against the oracle."""
    tally = Tally()
    for seed in seeds:
        random = Random(seed)
        shape, elastic = random_left(random)
        order = random.choice(("dc", "dcdc", "ddoc", "dcc"))
        name = f"left {seed} {elastic.old_ranks} of {shape}"
        case = LeftCase(
            program_left(name, shape, elastic, seed, order),
            elastic,
            random.choice((1, 2, 3, 7)),
            offset=random.choice((0, 0, 1, 8, 13)),
        )
        schedule = Schedule(
            seed=seed, uneven=random.random() < 0.5, landing_percent=random.choice((3, 30, 70))
        )
        tally.add(name, case.run(schedule).problems)
    return tally


@cache
def death_cases() -> list[DeathCase]:
    return [death_case(*how, seed) for seed, how in enumerate(DEATHS)]


@dataclass
class Deaths:
    """What the deaths showed, and at which points ranks died."""

    tally: Tally
    points: Counter[str]

    def __add__(self, other: Deaths) -> Deaths:
        return Deaths(self.tally + other.tally, self.points + other.points)


def run_deaths(seeds: range) -> Deaths:
    """`DEATHS` in turn, under uneven schedules; where a rank dies follows from the seed."""
    found, cases = Deaths(Tally(), Counter()), death_cases()
    for seed in seeds:
        random = Random(seed)
        schedule = Schedule(
            seed=seed,
            landing_percent=random.choice((1, 5, 30, 70, 95)),
            uneven=random.random() < 0.7,
        )
        outcome = cases[seed % len(cases)].run(schedule)
        found.tally.add(f"death {seed}", outcome.problems)
        found.points.update(map(point_of, outcome.deaths))
    return found


def point_of(death: str) -> str:
    """What kind of point the place of a death is."""
    for name, places in POINTS.items():
        if any(place in death for place in places):
            return name
    return "behind the last launch" if not death else "elsewhere"


def mutation_cases() -> Iterator[Case]:
    """They reach all that knows of ranks that are gone; elastic_info of the large group is read in pieces."""
    yield MeetingCase(ranks=4, cores=2, gone=(1,))
    yield MeetingCase(ranks=3, cores=1, gone=(2,), old_data=False)
    yield from death_cases()
    many = replace(LAYERS, hidden=1024, max_batch=200)
    for shape, old_ranks, shared, order, cores in (
        (LAYERS, (2, 0, 1), 0, "dccdc", 2),
        (replace(SHARED, quant=True, mask=2), (4, 1, 5), 1, "dccdc", 2),
        (replace(SHARED, quant=True, smooth=True, mask=2, max_batch=5), (1, 2, 5), 1, "dcc", 1),
        (replace(LAYERS, ranks=140), (7, 139, 70), 0, "dccdc", 2),
        (replace(LAYERS, max_batch=24, topk=1, quant=True, smooth=True, mask=2), (3, 0), 0, "d", 1),
        (replace(many, quant=True), (0, 2), 0, "dc", 1),
        (many, (1, 3), 0, "dc", 2),
    ):
        local = shape.local_experts
        elastic = Elastic(shape.ranks, shared, (len(old_ranks) - shared) * local, old_ranks)
        yield LeftCase(program_left("mutation", shape, elastic, 1, order), elastic, cores)


@cache
def reached() -> dict[str, Sequence[Case]]:
    """Every site of ``kernels/device`` that one of these cases reaches, with those that do."""
    return cases_by_site(mutation_cases())


def what_notices(site: str) -> str:
    """The first word of what notices the absence of a site; empty if nothing does."""
    return first_to_notice(site, reached()[site])


class SurvivorProof:
    """Its parts, started in a pool and then waited for."""

    def __init__(self, pool: Executor, *, quick: bool) -> None:
        self._sweep, self._deaths = (40, 300) if quick else (300, 3_000)
        self._swept = [pool.submit(run_left_sweep, seeds) for seeds in chunks(self._sweep, 50)]
        self._died = [pool.submit(run_deaths, seeds) for seeds in chunks(self._deaths, 100)]
        self._sites = sorted(reached())
        self._noticed = [pool.submit(what_notices, site) for site in self._sites]

    def figures(self, done: Callable[[str, Tally | None], None]) -> tuple[dict[str, Any], bool]:
        """For the record, and whether nothing was found."""
        swept = sum((run.result() for run in self._swept), Tally())
        done(f"ranks left, sweep: {swept.passed} of {self._sweep} equal to the oracle", swept)
        deaths = sum((run.result() for run in self._died), Deaths(Tally(), Counter()))
        done(f"deaths: {deaths.tally.passed} of {self._deaths} survived", deaths.tally)
        done(f"deaths by point: {dict(deaths.points.most_common())}", None)
        noticed = zip(self._sites, self._noticed, strict=True)
        missed = [site for site, how in noticed if not how.result()]
        number = len(self._sites)
        done(f"ranks left, mutants: {number - len(missed)} of {number} noticed", None)
        for site in missed:
            print(f"  not noticed: {site}")
        everything = swept + deaths.tally
        return {
            "sweep_cases": self._sweep,
            "death_schedules": self._deaths,
            "deaths_by_point": dict(deaths.points.most_common()),
            "findings": everything.findings,
            "deadlocks": everything.deadlocks,
            "mutations_caught": number - len(missed),
            "mutations_total": number,
        }, not everything.examples
