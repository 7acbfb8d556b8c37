"""Two ranks in two servers throw messages at each other over the network card (``kernels/device/ping_pong.h``)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

from .arguments import words
from .cards import CONTROL_BYTES, CardGroup, Wire
from .execution import Outcome, old_window
from .failures import records_of
from .simulator import Schedule, Simulator


class PingPong(ctypes.Structure):
    """``ascend_moe::PingPong`` of ``kernels/device/rdma_abi.h``."""

    _fields_ = [
        (name, ctypes.c_uint32) for name in ("peer", "first", "turns", "burst", "bytes", "timeout_ticks")
    ]


@dataclass(frozen=True)
class PingPongCase:
    """So many turns of ``burst`` messages and a tag, there and back, on every queue pair."""

    wire: Wire
    turns: int
    burst: int
    bytes: int
    timeout_ticks: int = 0

    @property
    def messages(self) -> int:
        """That both ranks post on all queue pairs."""
        return 2 * self.wire.queues * self.turns * (self.burst + 1)

    def run(self, schedule: Schedule, site: str = "", launches: int = 1) -> Outcome:
        """One run, without the site if one is given; with more launches each goes on with what the one before got back."""
        queues, words_of_row = self.wire.queues, self.bytes // 4
        pitch = (self.bytes + 511) // 512 * 512
        window = CONTROL_BYTES + queues * (512 + self.burst * pitch)
        with Simulator(schedule, site) as simulator:
            group = CardGroup(
                simulator, (0, 1), window, self.wire, old_data=old_window(schedule.seed)
            )
            start = torch.arange(queues * self.burst * pitch // 4, dtype=torch.int32) * 7919
            start = start.view(-1, pitch // 4)
            given = simulator.put(0, start, "start")
            received = simulator.alloc(0, start.numel() * 4, "received")
            numbers = [
                [self._launch(group, rank, launch, given, received) for rank in (0, 1)]
                for launch in range(launches)
            ]
            finished = simulator.run()
            outcome = Outcome(
                *(simulator.findings, simulator.deadlock, []),
                sites=simulator.sites,
                steps=simulator.steps,
            )
            if not finished:
                return outcome
            outcome.counters = [list(map(simulator.counters, launched)) for launched in numbers]
            outcome.named = [
                sorted({(record.reason, record.peer) for record in records_of(simulator, at)})
                for at in group.inputs
            ]
            outcome.failed = sum(map(bool, outcome.named))
            if outcome.failed:
                return outcome
            content, written = (
                part[:, :words_of_row] for part in simulator.get(received, start)
            )
            expected = start[:, :words_of_row] + launches * self.turns
            if not written.all() or not torch.equal(content, expected):
                outcome.mismatches.append("what came back differs")
            return outcome

    def _launch(
        self, group: CardGroup, rank: int, launch: int, given: int, received: int
    ) -> int:
        """Turns are numbered through all launches, as epochs are."""
        probe = PingPong(
            *(1 - rank, launch * self.turns + 1, self.turns),
            *(self.burst, self.bytes, self.timeout_ticks),
        )
        return group.simulator.launch(
            rank,
            "ascend_moe_ping_pong",
            [
                *(group.contexts[rank], group.tables[rank], received if launch else given),
                *(received, *words(probe)),
            ],
            self.wire.queues,
        )
