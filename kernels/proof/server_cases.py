"""Cases of several servers: ``mutation.py`` and ``failures.py`` for ``docs/kernels-hierarchy.md``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random

import torch

from .cards import Wire
from .execution import Outcome, old_window
from .failures import Record, records_of
from .mutation import Case
from .programs import Program
from .server_programs import SMALL, server_program
from .servers import ServerGroup, compare, execute_on_servers, server_window_bytes
from .simulator import Schedule, Simulator

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

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given."""
        return execute_on_servers(
            self.program, schedule, wire=self.wire, cores=self.cores, mutate=site
        )


@dataclass(frozen=True)
class LateServerCase:
    """A rank is late by more than the time limit. What has no error record in front of it is right, on all ranks."""

    program: Program
    cores: int

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
            )
            results = group.play(self.program)
            finished = simulator.run()
            outcome = Outcome(simulator.findings, simulator.deadlock, [], sites=simulator.sites)
            if not finished:
                return outcome
            for rank, window in enumerate(group.inputs):
                mine = records_of(simulator, window)
                right = min((record.step(self.program) for record in mine), default=len(results))
                outcome.failed += right < len(results)
                for number in range(right):
                    step = self.program.steps[number]
                    wrong = compare(simulator, step, rank, results[number][rank])
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
) -> ServerGroup:
    """A group for this program with a time limit, its windows full of old epochs."""
    return ServerGroup(
        simulator,
        program.ranks,
        server_window_bytes(program),
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
) -> Blamed:
    """Runs a program over a broken group; every launch must end."""
    with Simulator(replace(schedule, patience=50)) as simulator:
        group = new_group(
            simulator, program, wire or Wire(), seed=schedule.seed, timeout=timeout, absent=absent
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
            right = min((record.step(program) for record in mine), default=len(results))
            for number in range(right if rank not in absent else 0):
                step = program.steps[number]
                difference = compare(simulator, step, rank, results[number][rank])
                if difference:
                    wrong.append(f"step {number} rank {rank}: {difference}")
        return Blamed(simulator.findings, simulator.deadlock, found, links, wrong)


def dead_links(program: Program, delivers: Mapping[tuple[int, int], int], depth: int = 16) -> Wire:
    """Queue pairs (from, to) that die after so many messages."""
    return Wire(depth=depth, delivers=delivers)


@cache
def cases() -> list[Case]:
    """Programs that together reach every site of ``kernels/device/hierarchy``; small ones first."""
    shapes = (
        (replace(SMALL, max_batch=2, quant=True, comm_quant=True), 2, "dccd", Wire(depth=4)),
        (
            replace(SMALL, dtype=torch.float16, quant=True, comm_quant=True, hidden=96, topk=5),
            1,
            "dcc",
            Wire(depth=8, head=2**16 - 3),
        ),
        (replace(SMALL, product="A3", hidden=1024, topk=2, mask=1), 2, "dc", Wire()),
        # More scales than are written together.
        (
            replace(SMALL, max_batch=70, topk=1, hidden=32, local_experts=1, quant=True),
            2,
            "dcc",
            Wire(),
        ),
        # Counts of more than a block.
        (replace(SMALL, max_batch=1, topk=2, local_experts=11, uneven=True), 9, "dc", Wire()),
        (SMALL, 3, "ddoc", Wire(depth=8)),
        # Cores that copy rows and forward nothing.
        (replace(SMALL, max_batch=20, topk=1, hidden=32, local_experts=1), 20, "d", Wire()),
        # A core that serves several servers, and servers where no token goes.
        (
            replace(SMALL, ranks=32, max_batch=1, topk=1, hidden=32, skewed=True),
            1,
            "dc",
            Wire(),
        ),
        (
            replace(SMALL, ranks=32, max_batch=3, topk=6, quant=True, comm_quant=True),
            1,
            "dcc",
            Wire(depth=8),
        ),
        (replace(SMALL, max_batch=2, measured=True), 2, "dccd", Wire()),
        # More rows, and more bytes of them, than are handled together.
        (
            replace(SMALL, max_batch=70, topk=1, hidden=1024, local_experts=1, skewed=True),
            1,
            "dc",
            Wire(),
        ),
    )
    found: list[Case] = [
        ServerCase(server_program(f"servers {number}", shape, number, order), cores, wire)
        for number, (shape, cores, order, wire) in enumerate(shapes)
    ]
    late = server_program("late servers", replace(SMALL, max_batch=2, topk=3), 2, "dccdc")
    return [*found, LateServerCase(late, 2)]


def schedules(number: int = 15) -> Iterator[Schedule]:
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


SOURCES = ("/device/hierarchy/",)


@cache
def reached() -> dict[str, list[Case]]:
    """Every site of ``kernels/device/hierarchy`` that a case reaches, with these cases."""
    sites: dict[str, list[Case]] = {}
    for case in cases():
        outcome = case.run(next(schedules()))
        if outcome.problems:
            raise AssertionError(f"{case} fails without a mutation: {outcome.problems[0]}")
        for site in outcome.sites:
            if any(source in site for source in SOURCES):
                sites.setdefault(site, []).append(case)
    return sites


def what_notices(site: str) -> str:
    """The first word of what notices the absence of a site; empty if nothing does."""
    for schedule in schedules():
        for case in reached()[site]:
            problems = case.run(schedule, site).problems
            if problems:
                return problems[0].split(" ", 1)[0]
    return ""
