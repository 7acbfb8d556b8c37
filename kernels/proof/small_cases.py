"""The kernels that no program of layers shows at work: the meeting of a group, packing, the first steps."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass

import torch
from torch import Tensor

from ascend_moe.contract.elastic import Elastic

from .arguments import meeting
from .execution import MEET_MAGIC, MEET_OFFSET, Outcome, old_window
from .group import CONTROL_BYTES, NONCE, KernelGroup
from .simulator import Schedule, Simulator

WINDOW_BYTES = 1 << 20
MARK, MEASURED, HOPS, SLOTS, HOP_BYTES = 0x5EED, 5, 4, 8, 32
"""Of `kernels/device/abi.h`, Measured and around it."""


@dataclass(frozen=True)
class MeetingCase:
    """Ranks meet, again and again on the same windows; what each has heard of each must be this meeting's."""

    ranks: int
    cores: int
    rounds: int = 2
    old_data: bool = True
    gone: tuple[int, ...] = ()
    """Nobody waits for them, nobody writes to them."""

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given."""
        mismatches = []
        with Simulator(schedule, site) as simulator:
            group = KernelGroup(
                simulator,
                self.ranks,
                WINDOW_BYTES,
                cores=self.cores,
                old_data=old_window(schedule.seed) if self.old_data else b"",
                opened=False,
            )
            for number in range(self.rounds):
                group.meet(NONCE + number, self._elastic)
                finished = simulator.run()
                if not finished:
                    break
                mismatches += self._wrong(simulator, group, NONCE + number)
            return Outcome(
                simulator.findings, simulator.deadlock, mismatches, sites=simulator.sites
            )

    @property
    def _elastic(self) -> Elastic | None:
        if not self.gone:
            return None
        left = tuple(rank for rank in range(self.ranks) if rank not in self.gone)
        return Elastic(self.ranks, 0, len(left), left)

    def _wrong(self, simulator: Simulator, group: KernelGroup, nonce: int) -> list[str]:
        wrong = []
        for rank, window in enumerate(group.windows):
            size = torch.empty(self.ranks, 8, dtype=torch.int32)
            content, written = simulator.get(window + MEET_OFFSET, size)
            if rank in self.gone:
                wrong += [f"rank {rank} is gone, its block is written"] if written.any() else []
                continue
            blocks = content.tolist()
            own = meeting(rank, nonce)
            for peer, block in enumerate(blocks):
                if peer in self.gone:
                    continue
                given = meeting(peer, nonce)
                expected = (MEET_MAGIC, *given.nonce, *own.nonce, *given.statement)
                if block != [ctypes.c_int32(word).value for word in expected]:
                    wrong.append(f"what rank {rank} has heard of rank {peer} differs: {block}")
        return wrong


@dataclass(frozen=True)
class TellCase:
    """Every rank tells some others a note; nobody else gets it."""

    ranks: int
    cores: int
    words: int = 24

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given."""
        with Simulator(schedule, site) as simulator:
            group = KernelGroup(simulator, self.ranks, WINDOW_BYTES, cores=self.cores, opened=False)
            group.meet(NONCE)  # makes the contexts
            finished = simulator.run()
            for rank in range(self.ranks):
                to = [sum(1 << peer for peer in self._told_by(rank)), *[0] * 23]
                given = (self._place(rank), self.words, *self._note(rank), *to)
                arguments = [
                    group.contexts[rank],
                    *struct.unpack("<25Q", struct.pack("<50I", *given)),
                ]
                simulator.launch(rank, "ascend_moe_tell", arguments, self.cores)
            finished = finished and simulator.run()
            mismatches = []
            note = torch.empty(self.words, dtype=torch.int32)
            for peer in range(self.ranks if finished else 0):
                for rank in range(self.ranks):
                    found, written = simulator.get(group.windows[peer] + self._place(rank), note)
                    told = peer in self._told_by(rank)
                    if written.any() != told or (
                        told and found.tolist() != self._note(rank)[: self.words]
                    ):
                        mismatches.append(f"what rank {peer} has of rank {rank} differs")
            return Outcome(
                simulator.findings, simulator.deadlock, mismatches, sites=simulator.sites
            )

    def _told_by(self, rank: int) -> list[int]:
        return [peer for peer in range(self.ranks) if (peer + rank) % 3]

    @staticmethod
    def _note(rank: int) -> list[int]:
        return [100 * rank + word for word in range(24)]

    @staticmethod
    def _place(rank: int) -> int:
        """Behind the blocks of the meeting."""
        return (100 << 10) + 96 * rank


@dataclass(frozen=True)
class PackCase:
    """One strided tensor of at most three dimensions."""

    tensor: Tensor
    cores: int

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given."""
        tensor, width = self.tensor, self.tensor.element_size()
        missing = 3 - tensor.dim()
        sizes = [1] * missing + list(tensor.shape)
        strides = [0] * missing + [step * width for step in tensor.stride()]
        storage = torch.tensor([], dtype=tensor.dtype).set_(tensor.untyped_storage())
        packing = struct.unpack("<5Q", struct.pack("<4I3Q", *sizes, width, *strides))
        with Simulator(schedule, site) as simulator:
            source = simulator.put(0, storage, "source") + tensor.storage_offset() * width
            target = simulator.alloc(0, tensor.numel() * width, "target")
            simulator.launch(0, "ascend_moe_pack", [source, target, *packing], self.cores)
            finished = simulator.run()
            mismatches = []
            if finished:
                found, written = simulator.get(target, tensor.contiguous())
                if not written.all() or not torch.equal(found, tensor.contiguous()):
                    mismatches = ["the packed tensor differs"]
            return Outcome(
                simulator.findings, simulator.deadlock, mismatches, sites=simulator.sites
            )


@dataclass(frozen=True)
class CoresCase:
    """Every core reports once, and what the next one had written before the SyncAll."""

    cores: int
    mark: int = 0x5EED

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given."""
        with Simulator(schedule, site) as simulator:
            empty = torch.zeros(self.cores, 3, 8, dtype=torch.int32)
            report = simulator.put(0, empty, "report")
            simulator.launch(0, "ascend_moe_cores", [report, self.mark], self.cores)
            finished = simulator.run()
            mismatches = []
            if finished:
                found = simulator.get(report, empty)[0].tolist()
                for core, (before, runs, behind) in enumerate(found):
                    own = [self.mark, core, self.cores]
                    if before[:3] != own or behind[:3] != own or runs != [1] + 7 * [0]:
                        mismatches.append(f"the report of core {core} differs")
            return Outcome(
                simulator.findings, simulator.deadlock, mismatches, sites=simulator.sites
            )


@dataclass(frozen=True)
class RowCase:
    """A row to the next rank, and the row of the rank before."""

    ranks: int

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given."""
        with Simulator(schedule, site) as simulator:
            group = KernelGroup(
                simulator,
                self.ranks,
                WINDOW_BYTES,
                old_data=old_window(schedule.seed),
                opened=False,
            )
            group.meet(NONCE)
            rows = [torch.arange(512) * (rank + 3) % 251 for rank in range(self.ranks)]
            rows = [row.to(torch.uint8) for row in rows]
            received = []
            for rank, row in enumerate(rows):
                received.append(simulator.alloc(rank, 512, "received"))
                sent = simulator.put(rank, row, "row")
                arguments = [group.contexts[rank], sent, received[rank], 0]
                simulator.launch(rank, "ascend_moe_row", arguments, 1)
            finished = simulator.run()
            mismatches = []
            for rank, address in enumerate(received if finished else ()):
                found, written = simulator.get(address, rows[rank])
                if not written.all() or not torch.equal(found, rows[rank - 1]):
                    mismatches.append(f"the row that rank {rank} received differs")
            return Outcome(
                simulator.findings, simulator.deadlock, mismatches, sites=simulator.sites
            )


@dataclass(frozen=True)
class MeasureCase:
    """Every kind of work that is measured, in the windows of two ranks: each core reports and stores."""

    cores: int
    bytes: int = 96
    turns: int = 10

    def run(self, schedule: Schedule, site: str = "") -> Outcome:
        """One run, without the site if one is given."""
        with Simulator(schedule, site) as simulator:
            group = KernelGroup(
                simulator, 2, WINDOW_BYTES, old_data=old_window(schedule.seed), opened=False
            )
            group.meet(NONCE)
            finished = simulator.run()
            mismatches = []
            empty = torch.zeros(self.cores, 8, dtype=torch.int32)
            for what in range(MEASURED) if finished else ():
                report = simulator.put(0, empty, "report")
                size = HOP_BYTES if what == HOPS else self.bytes
                given = (what, 1, 0, self.turns, size, MARK + what)
                arguments = [
                    group.contexts[0],
                    report,
                    *struct.unpack("<3Q", struct.pack("<6I", *given)),
                ]
                simulator.launch(0, "ascend_moe_measure", arguments, self.cores)
                finished = finished and simulator.run()
                found = simulator.get(report, empty)[0] if finished else empty
                if finished and (found[:, 0] != MARK + what).any():
                    mismatches.append(f"the report of kind {what} differs")
            area = torch.zeros(SLOTS * self.bytes, dtype=torch.uint8)
            for core in range(self.cores if finished else 0):
                window = group.windows[1 - core % 2]
                at = window + CONTROL_BYTES + core * area.numel()
                if simulator.get(at, area)[0].any():
                    mismatches.append(f"what core {core} has stored differs")
            return Outcome(
                simulator.findings, simulator.deadlock, mismatches, sites=simulator.sites
            )
