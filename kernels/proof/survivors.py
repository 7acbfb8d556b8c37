"""Programs of the ranks that are left of a group, in new numbers, and what must hold when a rank dies in the middle.

A death is the end of a rank between two steps of the simulator: anywhere in a kernel, with copies under way that land
or never do. The others end within the time limit; what has no error record in front of it is right. Then they meet
without the dead, on windows full of what the failed launches left, and go on with ``elastic_info``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from ascend_moe.contract.elastic import Elastic
from ascend_moe.contract.shapes import World

from .execution import Outcome, compare_with_oracle
from .failures import enqueue, new_group, records
from .group import NONCE, KernelGroup
from .programs import Layers, Program, with_layers
from .shapes import Shape
from .simulator import Schedule, Simulator

TIMEOUT_TICKS = 1000
"""About the steps that all cores of a world take in a program, many times over."""


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


def run_left(
    simulator: Simulator, group: KernelGroup, program: Program, finish: bool = True
) -> list[str]:
    """What is wrong with a program of the ranks that are left, whose meeting is enqueued."""
    results = enqueue(group, program)
    if not simulator.run():
        return []
    wrong = [
        f"a rank that is left has an error record: {mine}"
        for rank in group.local
        if (mine := records(simulator, group)[rank])
    ]
    for number, (step, ranks) in enumerate(zip(program.steps, results, strict=True)):
        for at, result in enumerate(ranks):
            if difference := compare_with_oracle(group, step, at, result):
                wrong.append(
                    f"{program.name} step {number} ({step.op}) rank {group.local[at]}: {difference}"
                )
    return wrong


@dataclass(frozen=True)
class LeftCase:
    """A group that some ranks left before its first call."""

    shape: Shape
    elastic: Elastic
    order: str
    cores: int
    seed: int = 1

    @cached_property
    def program(self) -> Program:
        return program_left(f"left {self.shape}", self.shape, self.elastic, self.seed, self.order)

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given."""
        with Simulator(schedule, site) as simulator:
            group = new_group(
                simulator,
                self.program,
                ranks=self.shape.ranks,
                cores=self.cores,
                seed=schedule.seed,
                opened=False,
            )
            group.open(NONCE, self.elastic)
            wrong = run_left(simulator, group, self.program)
            return Outcome(simulator.findings, simulator.deadlock, wrong, sites=simulator.sites)
