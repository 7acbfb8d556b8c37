"""A group in several servers that is opened again while messages of the context before are still under way.

In the first context the network stands still from some moment on, so launches run into their time limit, most of them
behind what they have posted. All have ended when the second context is opened, which the host sees to; then the
messages go on. Nobody waits for them but `open`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from random import Random

from .cards import Wire
from .execution import Outcome, old_window, run_and_judge
from .group import NONCE
from .programs import Program
from .servers import ServerGroup, server_window_bytes
from .simulator import Schedule, Simulator

NEXT_NONCE = NONCE + 0x1000
TIMEOUT_TICKS = 40


@dataclass(frozen=True)
class ReopenedCase:
    """The program in a second context, behind launches of its own in a first one. All results are right."""

    program: Program
    cores: int
    group_type: type[ServerGroup] = ServerGroup

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given; when the network stands still follows from the seed."""
        random, program = Random(schedule.seed), self.program
        schedule = replace(schedule, patience=50, stalled_rank=-1)
        with Simulator(schedule, site) as simulator:
            group = self.group_type(
                simulator,
                program.ranks,
                server_window_bytes(program, self.group_type.kernels),
                Wire(),
                product=program.product,
                cores=self.cores,
                old_data=old_window(schedule.seed),
            )
            opened = simulator.run()
            group.timeout_ticks = TIMEOUT_TICKS
            group.play(program)
            if not opened or not simulator.run_kernels(random.randrange(4000)):
                return Outcome(simulator.findings, simulator.deadlock, [], sites=simulator.sites)
            group.timeout_ticks = 0
            group.open(NEXT_NONCE)
            results = group.play(program)
            return run_and_judge(simulator, program, results, partial(group.compare, simulator))
