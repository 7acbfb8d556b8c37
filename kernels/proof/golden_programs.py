"""The vendor kernels' own inputs and outputs as programs: what must come out is the stored data, not an oracle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from golden import PATHS, SERVER_PATHS, GoldenCase

from ascend_moe.contract.limits import RANKS_PER_SERVER

from .execution import execute
from .group import Dispatched, KernelGroup
from .mesh import MeshGroup
from .programs import Program, Step
from .server_programs import ServerProgram
from .servers import ServerGroup, execute_on_servers
from .simulator import Schedule, Simulator


def golden_cases(product: str = "A3") -> list[GoldenCase]:
    """Every stored case of a product that our kernels serve: on A2 those of one server."""
    cases = [case for case in map(GoldenCase.load, PATHS) if case.product == product]
    return [case for case in cases if product == "A3" or case.ranks <= RANKS_PER_SERVER]


def server_golden_cases() -> list[GoldenCase]:
    """Every stored case of hierarchy, A2 and A3."""
    return [GoldenCase.load(path) for path in SERVER_PATHS]


def mesh_golden_cases() -> list[GoldenCase]:
    """Every stored case of A2 full mesh that needs more than one server."""
    cases = map(GoldenCase.load, PATHS)
    return [case for case in cases if case.product == "A2" and case.ranks > RANKS_PER_SERVER]


class GoldenProgram:
    """One case, played ``rounds`` times back to back (the data is the vendor kernels' second round).

    The handle of A2 is compared by what combine makes of it: ours is that of A3.
    """

    def __init__(self, case: GoldenCase, rounds: int = 2) -> None:
        self.case = case
        kind = ServerProgram if case.servers else Program
        self.program = kind(case.name, case.contract, case.product)
        for _ in range(rounds):
            dispatch = [case.dispatch_call(rank) for rank in range(case.ranks)]
            number = self.program.dispatch(dispatch)
            handles = self.program.steps[number].expected
            combine = [case.combine_call(rank, handles[rank]) for rank in range(case.ranks)]
            self.program.steps.append(Step("combine", combine, [None] * case.ranks, number))

    def problems(self, schedule: Schedule, *, cores: int) -> list[str]:
        """Runs the case and compares every stored tensor; findings and deadlocks count as well."""

        def judge(group: KernelGroup, step: Step, rank: int, result: Any) -> str:
            return self._difference(group.simulator, rank, result)

        return execute(self.program, schedule, cores=cores, judge=judge).problems

    def problems_on_servers(self, schedule: Schedule, *, cores: int) -> list[str]:
        """The same for a case of several servers."""

        def judge(simulator: Simulator, step: Step, rank: int, result: Any) -> str:
            return self._difference(simulator, rank, result)

        group_type = ServerGroup if self.case.servers else MeshGroup
        return execute_on_servers(
            self.program, schedule, cores=cores, judge=judge, group_type=group_type
        ).problems

    def _difference(self, simulator: Simulator, rank: int, result: Any) -> str:
        try:
            if isinstance(result, Dispatched):
                content = [
                    simulator.get(result.addresses[name], like)[0]
                    for name, like in result.shapes.items()
                ]
                handle = self.case.product == "A3" and not self.case.servers
                self.case.check_dispatch(rank, content, handle=handle)
            else:
                self.case.check_combine(rank, simulator.get(result.address, result.shape)[0])
        except AssertionError as error:
            return str(error).splitlines()[0]
        return ""
