"""From timed loops to the figures of the model's machine (``kernels/proof/machine.py``).

The loops are those of ``kernels/device/measure.h``, by whatever runs them: this machine, or the timed simulator, where
a test sees whether the figures come out that went in. Every loop is run twice, once with twice the turns: what is in
both (launch, first SyncAll, cold caches) is in no figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

from kernels.proof.machine import LINKS, Machine, machine

TICK_NS = 20.0  # GetSystemCycle counts 50 MHz
HOP_BYTES, SMALL_BYTES, LARGE_BYTES = 32, 32, 16 << 10
TURNS, TURNS_SHORT, LAUNCHES = 256, 16, 64
TWO_LINKS = 1.5  # from two peers that much faster than from one: each pair has a link of its own


class Work(IntEnum):
    """``Measured`` of ``kernels/device/abi.h``."""

    NOTHING, SYNC_ALL, LOADS, STORES, HOPS = range(5)


class Times(NamedTuple):
    """Of every core that ran, in ticks; of the launches and their end, in nanoseconds of the host."""

    ticks: Sequence[int]
    host_ns: int


class Loop(Protocol):
    """Runs one loop on so many cores; even ones work on the window of ``peer``, odd ones on that of ``other``."""

    def __call__(
        self, work: Work, *, peer: int, other: int, turns: int, size: int, cores: int, launches: int
    ) -> Times: ...


LEFT_OUT = {
    "clock_ghz": "kernels see a counter of 50 MHz, not the clock of a core",
    "issue_cycles, scalar_cycles, scalar_miss_ns, flag_cycles, queue_depth": "no loop of ours shows one of them alone",
    "vector_*": "published, and no loop of ours times vector instructions",
    "outstanding_bytes": "is in core_remote_read and core_remote_write",
    "memory": "the L2 cache serves a part of what all cores read",
    "card_rate, card_latency_ns, card_post_ns": "one core prepares a message more slowly than a card sends it",
    "package_dies, server_dies": "given by the product",
    "beyond_*": "the kit plays within a server",
}
"""What is not measured, and why."""


class Estimator:
    """Asks a machine for its figures, as one of its ranks."""

    def __init__(
        self,
        loop: Loop,
        product: str,
        rank: int,
        ranks: Sequence[int],
        cores: int,
        turns: int = TURNS,
    ) -> None:
        """``ranks``: those whose windows this one reaches, itself included."""
        self._turns = turns
        self._loop, self._rank, self._cores = loop, rank, cores
        self._ranks = ranks
        self._given: Machine = machine(product)

    def figures(self) -> dict[str, float]:
        """All that can be measured from here, by the names of the model."""
        sync = self._turn(Work.SYNC_ALL, cores=self._cores)
        start = self._turn(Work.STORES, size=SMALL_BYTES)
        empty, hop = self._turn(Work.HOPS), self._turn(Work.HOPS, size=HOP_BYTES)
        memory_latency = hop - empty - start
        found = {
            "cores": float(self._cores),
            "launch_ns": self._launch(),
            "sync_all_ns": sync,
            "copy_start_ns": start,
            "memory_latency_ns": memory_latency,
            "core_read": self._core_rate(Work.LOADS, self._rank, start),
            "core_write": self._core_rate(Work.STORES, self._rank, start),
        }
        for distance in LINKS:
            peers = [one for one in self._ranks if self._given.link(self._rank, one) == distance]
            if not peers:
                continue
            away = self._turn(Work.HOPS, peer=peers[0], size=HOP_BYTES)
            found[f"{distance}_latency_ns"] = away - hop + memory_latency
            found[f"{distance}_rate"] = self._link_rate(peers[0], peers[0])
            found["core_remote_read"] = self._core_rate(Work.LOADS, peers[0], start)
            found["core_remote_write"] = self._core_rate(Work.STORES, peers[0], start)
            if distance == "server" and len(peers) > 1:
                two = self._link_rate(peers[0], peers[1])
                found["pairwise"] = float(two > TWO_LINKS * found["server_rate"])
        return {name: round(value, 3) for name, value in found.items() if value >= 0}

    def _turn(
        self,
        work: Work,
        *,
        peer: int | None = None,
        other: int | None = None,
        size: int = 0,
        cores: int = 1,
    ) -> float:
        """Nanoseconds of one turn, of the slowest core."""
        peer = self._rank if peer is None else peer
        other = peer if other is None else other
        once, twice = (
            max(
                self._loop(
                    work, peer=peer, other=other, turns=turns, size=size, cores=cores, launches=1
                ).ticks
            )
            for turns in (self._turns, 2 * self._turns)
        )
        return (twice - once) * TICK_NS / self._turns

    def _core_rate(self, work: Work, peer: int, start: float) -> float:
        """GB/s of one core, without what a copy takes to start."""
        return LARGE_BYTES / max(self._turn(work, peer=peer, size=LARGE_BYTES) - start, 1e-3)

    def _link_rate(self, peer: int, other: int) -> float:
        """GB/s of all cores together."""
        turn = self._turn(Work.LOADS, peer=peer, other=other, size=LARGE_BYTES, cores=self._cores)
        return self._cores * LARGE_BYTES / max(turn, 1e-3)

    def _launch(self) -> float:
        """Of launches in a row, by the host."""
        once, twice = (
            self._loop(
                Work.NOTHING,
                peer=self._rank,
                other=self._rank,
                turns=0,
                size=0,
                cores=self._cores,
                launches=launches,
            ).host_ns
            for launches in (LAUNCHES, 2 * LAUNCHES)
        )
        return (twice - once) / LAUNCHES
