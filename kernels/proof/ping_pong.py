"""Two ranks in two servers throw messages at each other over the network card (``kernels/device/ping_pong.h``)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

from .arguments import words
from .cards import CardGroup, Wire
from .execution import Outcome, old_window
from .failures import records_of
from .group import CONTROL_BYTES
from .simulator import Schedule, Simulator


class PingPong(ctypes.Structure):
    """``ascend_moe::PingPong`` of ``kernels/device/rdma_abi.h``."""

    _fields_ = [
        (name, ctypes.c_uint32)
        for name in ("peer", "first", "turns", "burst", "bytes", "timeout_ticks")
    ]


@dataclass(frozen=True)
class PingPongCase:
    """So many turns of ``burst`` messages and a tag, there and back, on every queue pair."""

    wire: Wire
    turns: int
    burst: int
    bytes: int
    timeout_ticks: int = 0

    def run(self, schedule: Schedule, site: str = "", launches: int = 1) -> Outcome:
        """One run, without the site if one is given; each launch goes on with what the one before got back."""
        with Simulator(schedule, site) as simulator:
            group = CardGroup(
                simulator, (0, 1), self.window_bytes, self.wire, old_data=old_window(schedule.seed)
            )
            given, received = self.tensors(simulator)
            numbers = [
                [self.launch(group, rank, launch, given, received) for rank in (0, 1)]
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
            outcome.mismatches += self.wrong(simulator, received, launches * self.turns)
            return outcome

    @property
    def _pitch(self) -> int:
        return (self.bytes + 511) // 512 * 512

    @property
    def window_bytes(self) -> int:
        """The smallest window."""
        return CONTROL_BYTES + self.wire.queues * (512 + self.burst * self._pitch)

    @property
    def _start(self) -> torch.Tensor:
        rows, words_of_row = self.wire.queues * self.burst, self._pitch // 4
        return torch.arange(rows * words_of_row, dtype=torch.int32).view(rows, -1) * 7919

    def tensors(self, simulator: Simulator) -> tuple[int, int]:
        """Of rank 0: what goes out first, and room for what comes back."""
        start = self._start
        received = simulator.alloc(0, start.numel() * 4, "received")
        return simulator.put(0, start, "start"), received

    def wrong(self, simulator: Simulator, received: int, turns: int) -> list[str]:
        """What is wrong with what came back after so many turns."""
        start, sent = self._start, self.bytes // 4
        content, written = (part[:, :sent] for part in simulator.get(received, start))
        if written.all() and torch.equal(content, start[:, :sent] + turns):
            return []
        return ["what came back differs"]

    def launch(self, group: CardGroup, rank: int, launch: int, given: int, received: int) -> int:
        """Launches one rank; turns are numbered through all launches, as epochs are."""
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
