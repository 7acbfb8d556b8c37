"""Programs with ``performance_info`` in which a rank is late: who is charged, and how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .cards import Wire
from .execution import Outcome, compare_with_oracle
from .failures import new_group
from .mesh import MeshGroup
from .programs import Program, Step
from .server_programs import PER_SERVER
from .servers import ServerGroup, server_window_bytes
from .simulator import Schedule, Simulator

JUMPS = 3
"""How often the clock jumps while everybody waits for the late rank."""
JUMP_US = 20_000
"""By so many microseconds: a million ticks of 50 MHz (``World::LetTimePass``)."""


@dataclass(frozen=True)
class WaitsCase:
    """All ranks stand idle in front of a step, and one of them is late in it. The others blame it, and for so long."""

    program: Program
    cores: int
    late_rank: int
    late_step: int
    initial: int = 0
    """What the tensors hold before."""

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given."""
        outcome, found = self.measure(schedule, site)
        for rank, waited in enumerate(found):
            if not self.blames(rank, (waited - self.initial).tolist()):
                outcome.mismatches.append(f"waits of rank {rank} differs: {waited.tolist()}")
        return outcome

    def blamed(self, schedule: Schedule) -> bool:
        """Whether all that stand for the late rank say so, and nothing else is wrong.

        A schedule may have it otherwise where everybody waits for several things: the simulator lets its clock jump
        while one of them is on its way.
        """
        problems = self.run(schedule).problems
        if not all(problem.startswith("waits of rank") for problem in problems):
            raise AssertionError(problems)
        return not problems

    def measure(self, schedule: Schedule, site: str = "") -> tuple[Outcome, list[Tensor]]:
        """One run, and what every rank's tensor holds behind it."""
        infos = [call["performance_info"] for call in self.program.steps[0].calls]
        for info in infos:
            info.fill_(self.initial)
        # Until the late rank stands still, both runs are the same.
        with Simulator(replace(schedule, stalled_rank=-1)) as simulator:
            self._before(simulator)
            idle = simulator.steps
        late = replace(
            schedule,
            stalled_rank=self.late_rank,
            stall_from=idle,
            stall_steps=10**9,
            patience=JUMPS,
        )
        with Simulator(late, site) as simulator:
            group, results = self._before(simulator)
            for step in self.program.steps[self.late_step :]:
                enqueue(group, step, results)
            finished = simulator.run()
            outcome = Outcome(simulator.findings, simulator.deadlock, [], sites=simulator.sites)
            if not finished:
                return outcome, []
            for number, (step, of_step) in enumerate(zip(self.program.steps, results, strict=True)):
                for rank, result in enumerate(of_step):
                    wrong = self._difference(group, step, rank, result)
                    if wrong:
                        outcome.mismatches.append(f"waits: step {number} rank {rank}: {wrong}")
            return outcome, [group.kept.content(rank, info) for rank, info in enumerate(infos)]

    def blames(self, rank: int, waited: Sequence[int]) -> bool:
        """Whether this is what a rank says when the late one is late."""
        if not self.stands(rank):
            return max(waited) < JUMP_US
        late = max(waited)
        blamed = waited.index(late)
        return blamed in self.culprits(rank) and JUMPS * JUMP_US <= late < (JUMPS + 1) * JUMP_US

    def stands(self, rank: int) -> bool:
        """Whether it has to wait for the late rank: in combine only if that one owes it rows."""
        step = self.program.steps[self.late_step]
        call = step.calls[rank]
        if rank == self.late_rank or step.op == "dispatch":
            return rank != self.late_rank
        per_rank = call["moe_expert_num"] // call["ep_world_size"]
        return bool((call["expert_ids"] // per_rank == self.late_rank).any())

    def culprits(self, rank: int) -> tuple[int, ...]:
        """For whom a rank may stand when the late one does not come."""
        return (self.late_rank,)

    def _before(self, simulator: Simulator) -> tuple[Any, list[Any]]:
        """A group, and the results of the steps in front of the late one, which have run."""
        group, results = self._group(simulator), []
        finished = simulator.run()
        for step in self.program.steps[: self.late_step]:
            enqueue(group, step, results)
        if not finished or not simulator.run():
            raise AssertionError(simulator.deadlock)
        return group, results

    def _group(self, simulator: Simulator) -> Any:
        return new_group(simulator, self.program, cores=self.cores)

    def _difference(self, group: Any, step: Step, rank: int, result: Any) -> str:
        return compare_with_oracle(group, step, rank, result)


@dataclass(frozen=True)
class ServerWaitsCase(WaitsCase):
    """The same on several servers, where a rank stands for its mates and for those of its rail."""

    group_type: type[ServerGroup] = ServerGroup

    def stands(self, rank: int) -> bool:
        """All wait for all, by way of others."""
        return rank != self.late_rank

    def culprits(self, rank: int) -> tuple[int, ...]:
        """In another server only a rank of the rail stands for the late one.

        In dispatch the others there stand for that mate, in combine for theirs of the rail, which stand for it too.
        """
        size = PER_SERVER[self.program.product]
        server, number = divmod(rank, size)
        late_server, late_number = divmod(self.late_rank, size)
        if server == late_server:
            return (self.late_rank,)
        return (server * size + late_number, late_server * size + number, self.late_rank)

    def _group(self, simulator: Simulator) -> Any:
        program = self.program
        window = server_window_bytes(program, self.group_type.kernels)
        return self.group_type(
            simulator, program.ranks, window, Wire(), product=program.product, cores=self.cores
        )

    def _difference(self, group: Any, step: Step, rank: int, result: Any) -> str:
        return group.compare(group.simulator, step, rank, result)


@dataclass(frozen=True)
class MeshWaitsCase(ServerWaitsCase):
    """In full mesh over servers, where every rank stands for every other one itself."""

    group_type: type[ServerGroup] = MeshGroup

    def culprits(self, rank: int) -> tuple[int, ...]:
        """The late one, wherever it is."""
        return (self.late_rank,)


def enqueue(group: Any, step: Step, results: list[Any]) -> None:
    """One step on all ranks; its results are appended."""
    if step.op == "dispatch":
        results.append(group.dispatch(step.calls))
    else:
        results.append(group.combine(step.calls, results[step.of]))
