"""Programs that fail: a rank is absent or late, TP pairs have unequal cores. What must hold, and who is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch

from .execution import Outcome, compare_with_oracle, old_window
from .group import NONCE, KernelGroup, tp_window_bytes, window_bytes
from .programs import Program
from .simulator import Schedule, Simulator

OPEN, DISPATCH, COMBINE = range(3)
ABSENT, OTHER_CORES, OTHER_CALL, FOREIGN_USE, FULL_QUEUE, OTHER_RANKS = range(6)


@dataclass(frozen=True, order=True)
class Record:
    """One error record: what a kernel wrote for the host (``kernels/device/abi.h``)."""

    op: int
    epoch: int
    peer: int
    cores: int
    reason: int

    def step(self, program: Program) -> int:
        """The number of the step that wrote it; 0 for `open`, in front of all."""
        if self.op == OPEN:
            return 0
        name = "dispatch" if self.op == DISPATCH else "combine"
        return [n for n, step in enumerate(program.steps) if step.op == name][self.epoch - 1]


def records(simulator: Simulator, group: KernelGroup, nonce: int = NONCE) -> list[list[Record]]:
    """Per rank its error records."""
    return [records_of(simulator, window, nonce) for window in group.windows]


def records_of(simulator: Simulator, window: int, nonce: int = NONCE) -> list[Record]:
    """The error records of a context in a window, sorted and without doubles."""
    blocks = simulator.get(window + 512, torch.empty(48, 8, dtype=torch.int32))[0].tolist()
    return sorted(
        {
            Record(op, epoch, peer - 1, cores, reason)
            for tag, epoch, peer, op, cores, reason, *_ in blocks
            if tag == nonce and peer
        }
    )


def failures(simulator: Simulator, group: KernelGroup) -> list[int]:
    """Per rank the number of cores that have given up, as the host reads it."""
    size = torch.empty(8, dtype=torch.int32)
    return [int(simulator.get(window + 32, size)[0][0]) for window in group.windows]


def new_group(
    simulator: Simulator,
    program: Program,
    *,
    timeout_ticks: int = 0,
    cores: int | Sequence[int] = 4,
    seed: int = 1,
    offset: int = 0,
    ranks: int = 0,
    opened: bool = True,
) -> KernelGroup:
    """A group for this program, its windows full of old epochs. ``ranks``: of the whole group, if some are gone."""
    calls = [(step.op, call) for step in program.steps for call in step.calls]
    return KernelGroup(
        simulator,
        ranks or program.ranks,
        window_bytes(calls),
        tp=program.tp,
        tp_window_bytes=tp_window_bytes(program.hidden, 8),
        timeout_ticks=timeout_ticks,
        old_data=old_window(seed),
        cores=cores,
        offset=offset,
        opened=opened,
    )


def enqueue(
    group: KernelGroup,
    program: Program,
    *,
    absent: int | None = None,
    last_cores: Sequence[int] | None = None,
) -> list[Any]:
    """All steps, the last one without the ranks from ``absent`` on, and with other numbers of cores."""
    results: list[Any] = []
    for number, step in enumerate(program.steps):
        last = number == len(program.steps) - 1
        if last and last_cores:
            group.cores = last_cores
        calls = step.calls[:absent] if last else step.calls
        if step.op == "dispatch":
            results.append(group.dispatch(calls))
        else:
            results.append(group.combine(calls, results[step.of][: len(calls)]))
    return results


@dataclass(frozen=True)
class LateCase:
    """A rank is late by more than the time limit. What has no error record in front of it is right, on all ranks."""

    program: Program
    cores: int

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given; where and how long the stall is follows from the seed."""
        random = Random(schedule.seed)
        schedule = replace(
            schedule,
            patience=20,
            # Copies land late, so what nobody waits for is missed.
            landing_percent=min(schedule.landing_percent, 5),
            stalled_rank=random.randrange(self.program.ranks),
            stall_from=random.randrange(50, 1500),
            stall_steps=random.choice((2000, 6000)),
        )
        with Simulator(schedule, site) as simulator:
            group = new_group(simulator, self.program, timeout_ticks=1, cores=self.cores)
            results = enqueue(group, self.program)
            finished = simulator.run()
            outcome = Outcome(simulator.findings, simulator.deadlock, [], sites=simulator.sites)
            if not finished:
                return outcome
            for rank, mine in enumerate(records(simulator, group)):
                right = min((record.step(self.program) for record in mine), default=len(results))
                outcome.failed += right < len(results)
                for number in range(right):
                    step = self.program.steps[number]
                    wrong = compare_with_oracle(group, step, rank, results[number][rank])
                    if wrong:
                        outcome.mismatches.append(f"late: step {number} rank {rank}: {wrong}")
            return outcome


@dataclass(frozen=True)
class UnequalCase:
    """TP pairs whose last launches have other numbers of cores: they end at once, without a time limit, and say so."""

    program: Program
    last_cores: tuple[int, ...]

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given."""
        with Simulator(schedule, site) as simulator:
            group = new_group(simulator, self.program, cores=3, seed=schedule.seed)
            enqueue(group, self.program, last_cores=self.last_cores)
            finished = simulator.run()
            outcome = Outcome(simulator.findings, simulator.deadlock, [], sites=simulator.sites)
            if not finished:
                return outcome
            op = DISPATCH if self.program.steps[-1].op == "dispatch" else COMBINE
            for rank, mine in enumerate(records(simulator, group)):
                other = self.last_cores[rank ^ 1]
                named = [(record.op, record.peer, record.cores, record.reason) for record in mine]
                if named != [(op, 1 - rank % 2, other, OTHER_CORES)]:
                    outcome.mismatches.append(f"unequal: rank {rank} names {named}")
            return outcome
