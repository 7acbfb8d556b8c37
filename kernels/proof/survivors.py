"""Programs of the ranks that are left of a group, in new numbers, and what must hold when a rank dies in the middle.

A death is the end of a rank between two steps of the simulator: anywhere in a kernel, with copies under way that land
or never do. The others end within the time limit; what has no error record in front of it is right. Then they meet
without the dead, on windows full of what the failed launches left, and go on with ``elastic_info``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch

from ascend_moe.contract.elastic import Elastic
from ascend_moe.contract.shapes import World

from .execution import Outcome, compare_with_oracle
from .failures import enqueue, new_group, records
from .group import NONCE, KernelGroup
from .programs import Layers, Program, layer_program, with_layers
from .shapes import Shape
from .simulator import Schedule, Simulator

TIMEOUT_TICKS = 500
"""Many times the steps of a kernel here, and less than passes when everybody waits."""


def world_of(shape: Shape) -> World:
    return World.of(
        ep_world_size=shape.ranks,
        moe_expert_num=shape.moe_experts,
        shared_expert_num=shape.shared_experts,
        shared_expert_rank_num=shape.shared_ranks,
    )


class LayersLeft(Layers):
    """Draws the calls of the ranks that are left: those of a smaller group, said in terms of the whole one."""

    def __init__(self, shape: Shape, elastic: Elastic, seed: int) -> None:
        """``shape``: of the whole group."""
        left = replace(shape, ranks=elastic.ranks, shared_ranks=elastic.shared_expert_rank_num)
        super().__init__(left, seed)
        self._whole, self._elastic = shape, elastic
        self._words = torch.tensor(elastic.words(), dtype=torch.int32)

    def dispatch(self) -> list[dict[str, Any]]:
        return self._by_old_rank(super().dispatch())

    def combine(
        self, dispatched: Sequence[Mapping[str, Any]], handles: Sequence[Any]
    ) -> list[dict[str, Any]]:
        order = sorted(self._elastic.old_ranks)
        new = [order.index(old) for old in self._elastic.old_ranks]
        return self._by_old_rank(
            super().combine([dispatched[at] for at in new], [handles[at] for at in new])
        )

    def _by_old_rank(self, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
        whole, elastic = self._whole, self._elastic
        lifted = []
        for old, call in zip(elastic.old_ranks, calls, strict=True):
            said = {
                "ep_world_size": whole.ranks,
                "ep_rank_id": old,
                "moe_expert_num": whole.moe_experts,
                "shared_expert_rank_num": whole.shared_ranks,
                "global_bs": call["global_bs"] // elastic.ranks * whole.ranks,
                "elastic_info": self._words,
            }
            if call.get("scales") is not None:
                gone = whole.moe_experts - elastic.moe_expert_num
                rows = torch.full((max(gone, 0), whole.hidden), torch.nan)
                said["scales"] = torch.cat([call["scales"], rows])
            lifted.append(call | said)
        return sorted(lifted, key=lambda call: int(call["ep_rank_id"]))


def program_left(name: str, shape: Shape, elastic: Elastic, seed: int, order: str) -> Program:
    """A program of the ranks that are left."""
    return with_layers(Program(name, "cann-9.1"), LayersLeft(shape, elastic, seed), order)


def results_of_left(
    simulator: Simulator, group: KernelGroup, program: Program, nonce: int
) -> list[str]:
    """What is wrong with a program of the ranks that are left: nothing may be, nobody may have given up."""
    results = enqueue(group, program)
    if not simulator.run():
        return []  # a deadlock says more
    named = records(simulator, group, nonce)
    wrong = [
        f"rank {rank}, which is left, gives up: {named[rank]}"
        for rank in group.local
        if named[rank]
    ]
    for number, (step, ranks) in enumerate(zip(program.steps, results, strict=True)):
        for at, result in enumerate(ranks):
            if difference := compare_with_oracle(group, step, at, result):
                rank = group.local[at]
                wrong.append(f"{program.name} step {number} ({step.op}) rank {rank}: {difference}")
    return wrong


@dataclass(frozen=True)
class LeftCase:
    """A group that some ranks left before its first call."""

    program: Program
    elastic: Elastic
    cores: int
    offset: int = 0

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given."""
        with Simulator(schedule, site) as simulator:
            group = new_group(
                simulator,
                self.program,
                ranks=self.elastic.whole,
                cores=self.cores,
                seed=schedule.seed,
                offset=self.offset,
                opened=False,
            )
            group.open(NONCE, self.elastic)
            wrong = results_of_left(simulator, group, self.program, NONCE)
            return Outcome(simulator.findings, simulator.deadlock, wrong, sites=simulator.sites)


@dataclass(frozen=True)
class DeathCase:
    """Ranks die one after the other, each somewhere in a program of those that were left before.

    ``programs``: the first one of all ranks, then one for each death, of the ranks that are left.
    """

    programs: tuple[Program, ...]
    elastics: tuple[Elastic, ...]
    """Who is left after each death."""
    cores: int
    steps: int = 1000
    """About as many as the first program takes in the simulator: where ranks die."""
    fresh: bool = True
    """False: every context has the nonce of the one before, which it must not."""

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given; where each rank dies follows from the seed."""
        random = Random(schedule.seed)
        # Nobody is late but by the uneven speed: who is, would be taken for dead.
        schedule = replace(schedule, patience=40, stalled_rank=-1)
        with Simulator(schedule, site) as simulator:
            group = new_group(
                simulator,
                self.programs[0],
                timeout_ticks=TIMEOUT_TICKS,
                cores=self.cores,
                seed=schedule.seed,
            )
            outcome = Outcome([], "", [])
            for number, (program, elastic) in enumerate(
                zip(self.programs, self.elastics, strict=False)
            ):
                nonce = NONCE + number * self.fresh
                dies = next(rank for rank in group.local if rank in elastic.gone)
                simulator.let_die(dies, random.randrange(self.steps))
                results = enqueue(group, program)
                if not simulator.run():
                    break
                outcome.deaths.append(simulator.death)
                outcome.mismatches += self._wrong(simulator, group, program, results, nonce, dies)
                nonce += self.fresh
                group.open(nonce, elastic)
            else:
                outcome.mismatches += results_of_left(simulator, group, self.programs[-1], nonce)
            outcome.findings, outcome.deadlock = simulator.findings, simulator.deadlock
            outcome.sites = simulator.sites
            return outcome

    def measured(self) -> DeathCase:
        """The same with the steps that the first program takes."""
        with Simulator() as simulator:
            enqueue(new_group(simulator, self.programs[0], cores=self.cores), self.programs[0])
            simulator.run()
            return replace(self, steps=simulator.steps)

    @staticmethod
    def _wrong(
        simulator: Simulator,
        group: KernelGroup,
        program: Program,
        results: Sequence[Sequence[Any]],
        nonce: int,
        dead: int,
    ) -> list[str]:
        """What is wrong on the others: what has no error record in front of it must be right."""
        wrong = []
        for at, rank in enumerate(group.local):
            if rank == dead:
                continue
            mine = records(simulator, group, nonce)[rank]
            right = min((record.step(program) for record in mine), default=len(results))
            for number in range(right):
                step = program.steps[number]
                if difference := compare_with_oracle(group, step, at, results[number][at]):
                    wrong.append(f"death: step {number} rank {rank}: {difference}")
        return wrong


def death_case(
    shape: Shape, dead: Sequence[int], order: str, cores: int, seed: int = 1
) -> DeathCase:
    """Ranks of a shape die in this order; every program has these steps."""
    elastics = [
        Elastic.of_survivors(world_of(shape), dead[: number + 1]) for number in range(len(dead))
    ]
    programs = [layer_program("all", shape, seed, order)]
    programs += [
        program_left(f"without {dead[: number + 1]}", shape, elastic, seed + number, order)
        for number, elastic in enumerate(elastics)
    ]
    return DeathCase(tuple(programs), tuple(elastics), cores).measured()
