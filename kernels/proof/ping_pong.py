"""Two ranks in two servers throw messages at each other over the network card (``kernels/device/ping_pong.h``)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

from .arguments import words
from .cards import CONTROL_BYTES, CardGroup, Wire
from .execution import Outcome, old_window
from .failures import Record, records_of
from .simulator import Schedule, Simulator


class PingPong(ctypes.Structure):
    """``ascend_moe::PingPong`` of ``kernels/device/rdma_abi.h``."""

    _fields_ = [
        (name, ctypes.c_uint32) for name in ("peer", "turns", "burst", "bytes", "timeout_ticks")
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

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given."""
        queues, size = self.wire.queues, self.burst * self.bytes
        pitch = (self.bytes + 511) // 512 * 512
        window = CONTROL_BYTES + queues * (512 + self.burst * pitch)
        with Simulator(schedule, site) as simulator:
            group = CardGroup(
                simulator, (0, 1), window, self.wire, old_data=old_window(schedule.seed)
            )
            start = torch.arange(queues * size // 4, dtype=torch.int32) * 7919
            given = simulator.put(0, start, "start")
            received = simulator.alloc(0, queues * size, "received")
            launches = [
                simulator.launch(
                    rank,
                    "ascend_moe_ping_pong",
                    [
                        *(group.contexts[rank], group.tables[rank], given, received),
                        *words(
                            PingPong(
                                1 - rank, self.turns, self.burst, self.bytes, self.timeout_ticks
                            )
                        ),
                    ],
                    queues,
                )
                for rank in (0, 1)
            ]
            finished = simulator.run()
            outcome = Outcome(simulator.findings, simulator.deadlock, [], sites=simulator.sites)
            if not finished:
                return outcome
            outcome.counters = [[simulator.counters(launch) for launch in launches]]
            found: list[list[Record]] = [
                records_of(simulator, address) for address in group.inputs
            ]
            outcome.failed = sum(map(bool, found))
            if outcome.failed:
                return outcome
            content, written = simulator.get(received, start)
            if not written.all() or not torch.equal(content, start + self.turns):
                outcome.mismatches.append("what came back differs")
            return outcome
