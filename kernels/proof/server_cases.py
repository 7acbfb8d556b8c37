"""Cases of several servers: ``mutation.py`` and ``failures.py`` for ``docs/kernels-hierarchy.md``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from random import Random

import torch

from .cards import Wire
from .execution import Outcome, old_window
from .failures import Record, records_of
from .mutation import Case
from .programs import Program
from .reopened import ReopenedCase
from .server_kernels import KERNELS
from .servers import ServerGroup, execute_on_servers, server_window_bytes
from .simulator import Schedule, Simulator

DEVICE = Path(__file__).parents[1] / "device"
SERVER, NETWORK = range(2)
TIMEOUT_TICKS = 1
HEADS = (0, 13, 2**15 - 2, 2**16 - 3, 2**32 - 5)
"""Where queues stand at the start: inside a round, and before head words and doorbells wrap."""


@dataclass(frozen=True)
class ServerCase:
    """A program, on how many cores and over which queues it runs."""

    program: Program
    cores: int
    wire: Wire = field(default_factory=Wire)
    group_type: type[ServerGroup] = ServerGroup

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given."""
        return execute_on_servers(
            self.program,
            schedule,
            wire=self.wire,
            cores=self.cores,
            mutate=site,
            group_type=self.group_type,
        )


@dataclass(frozen=True)
class LateServerCase:
    """A rank is late by more than the time limit. What has no error record in front of it is right, on all ranks."""

    program: Program
    cores: int
    group_type: type[ServerGroup] = ServerGroup

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given; where and how long the stall is follows from the seed."""
        random = Random(schedule.seed)
        schedule = replace(
            schedule,
            patience=20,
            landing_percent=min(schedule.landing_percent, 5),
            stalled_rank=random.choice((-1, random.randrange(self.program.ranks))),
            stall_from=random.randrange(200, 8000),
            stall_steps=random.choice((1000, 3000)),
        )
        timeout = random.choice((3, 4, 5, 6))  # a launch takes two or three
        with Simulator(schedule, site) as simulator:
            group = new_group(
                simulator,
                self.program,
                Wire(),
                cores=self.cores,
                seed=schedule.seed,
                timeout=timeout,
                group_type=self.group_type,
            )
            results = group.play(self.program)
            finished = simulator.run()
            outcome = Outcome(simulator.findings, simulator.deadlock, [], sites=simulator.sites)
            if not finished:
                return outcome
            for rank, window in enumerate(group.inputs):
                mine = records_of(simulator, window)
                right = min(
                    (group.step_of(record, self.program) for record in mine), default=len(results)
                )
                outcome.failed += right < len(results)
                for number in range(right):
                    step = self.program.steps[number]
                    wrong = group.compare(simulator, step, rank, results[number][rank])
                    if wrong:
                        outcome.mismatches.append(f"late: step {number} rank {rank}: {wrong}")
            return outcome


def new_group(
    simulator: Simulator,
    program: Program,
    wire: Wire,
    *,
    cores: int | Sequence[int] = 2,
    seed: int = 1,
    timeout: int = TIMEOUT_TICKS,
    absent: Sequence[int] = (),
    group_type: type[ServerGroup] = ServerGroup,
) -> ServerGroup:
    """A group for this program with a time limit, its windows full of old epochs."""
    return group_type(
        simulator,
        program.ranks,
        server_window_bytes(program, group_type.kernels),
        wire,
        product=program.product,
        cores=cores,
        old_data=old_window(seed),
        timeout_ticks=timeout,
        absent=absent,
    )


@dataclass
class Blamed:
    """How a run that must fail ended: per rank its records, and the links they name."""

    findings: list[dict[str, object]]
    deadlock: str
    records: list[list[Record]]
    links: list[list[tuple[int, int]]]
    """Per rank (peer, link) of every record."""
    wrong: list[str]
    """Results in front of a rank's first record that are not what they must be."""


def blame(
    program: Program,
    schedule: Schedule,
    *,
    wire: Wire | None = None,
    absent: Sequence[int] = (),
    timeout: int = 40,
    group_type: type[ServerGroup] = ServerGroup,
) -> Blamed:
    """Runs a program over a broken group; every launch must end."""
    with Simulator(replace(schedule, patience=50)) as simulator:
        group = new_group(
            simulator,
            program,
            wire or Wire(),
            seed=schedule.seed,
            timeout=timeout,
            absent=absent,
            group_type=group_type,
        )
        results = group.play(program)
        simulator.run()
        found, links, wrong = [], [], []
        for rank, window in enumerate(group.inputs):
            mine = records_of(simulator, window)
            found.append(mine)
            blocks = simulator.get(window + 512, torch.empty(48, 8, dtype=torch.int32))[0]
            links.append(
                sorted({(int(b[2]) - 1, int(b[6])) for b in blocks if int(b[2]) and int(b[1])})
            )
            right = min((group.step_of(record, program) for record in mine), default=len(results))
            for number in range(right if rank not in absent else 0):
                step = program.steps[number]
                difference = group.compare(simulator, step, rank, results[number][rank])
                if difference:
                    wrong.append(f"step {number} rank {rank}: {difference}")
        return Blamed(simulator.findings, simulator.deadlock, found, links, wrong)


def dead_links(program: Program, delivers: Mapping[tuple[int, int], int], depth: int = 16) -> Wire:
    """Queue pairs (from, to) that die after so many messages."""
    return Wire(depth=depth, delivers=delivers)


@cache
def cases(kernels: str = "hierarchy") -> list[Case]:
    """Programs that together reach every site of these kernels; small ones first."""
    of = KERNELS[kernels]
    found: list[Case] = [
        ServerCase(
            of.program(f"{kernels} {number}", shape, number, order), cores, wire, of.group_type
        )
        for number, (shape, cores, order, wire) in enumerate(of.cases)
    ]
    late = of.program(f"late {kernels}", *of.late)
    return [*found, LateServerCase(late, 2, of.group_type), reopened(kernels)]


def reopened(kernels: str) -> ReopenedCase:
    """A second context of these kernels behind one that failed."""
    of = KERNELS[kernels]
    shape, seed, _ = of.late
    return ReopenedCase(of.program(f"reopened {kernels}", shape, seed, "dc"), 2, of.group_type)


def schedules(number: int = 40) -> Iterator[Schedule]:
    """Uneven and stalled ranks, early and in the middle; most mutants fall to the first."""
    for seed in range(1, number + 1):
        yield Schedule(
            seed=seed,
            landing_percent=(3, 30, 70)[seed % 3],
            uneven=seed % 2 == 0,
            stalled_rank=(-1, 0, 9, 3, 15)[seed % 5],
            stall_from=400 * (seed - 1),
            stall_steps=20_000,
            max_steps=3_000_000,  # a mutant may poll for ever
        )


SITE = re.compile(
    r"MOE_(SYNC|VBARRIER|SYNC_ALL|FLAG)\(|(PipeBarrier|SyncAll|SetFlag|WaitFlag|AllocTensor|DeQue)<"
)


def written_sites(kernels: str) -> list[str]:
    """Where the sources of these kernels synchronise: file and line. A watch is told the name of a flag, no more."""
    return [
        f"kernels/device/{kernels}/{path.name}:{number}"
        for path in sorted((DEVICE / kernels).glob("*.h"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if SITE.search(line.split("//")[0]) and "Watch(" not in line
    ]


@cache
def reached(kernels: str = "hierarchy") -> dict[str, list[Case]]:
    """Every site of these kernels that a case reaches, with these cases."""
    sites: dict[str, list[Case]] = {}
    for case in cases(kernels):
        outcome = case.run(next(schedules()))
        if outcome.problems:
            raise AssertionError(
                f"{case.program.name} fails without a mutation: {outcome.problems[0]}"
            )
        for site in outcome.sites:
            if f"/device/{kernels}/" in site:
                sites.setdefault(site, []).append(case)
    return sites


def what_notices(site: str) -> str:
    """The first word of what notices the absence of a site; empty if nothing does."""
    kernels = next(name for name in KERNELS if f"/device/{name}/" in site)
    for schedule in schedules():
        for case in reached(kernels)[site]:
            problems = case.run(schedule, site).problems
            if problems:
                return problems[0].split(" ", 1)[0]
    return ""
