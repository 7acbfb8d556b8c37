"""What no implementation of a protocol can be faster than: the bytes over the busiest link, and what depends on it."""

from __future__ import annotations

from dataclasses import dataclass

from .machine import Machine
from .timing import EXPERTS, Shape, balanced_ids


@dataclass(frozen=True)
class Floor:
    """Microseconds, part by part."""

    parts: tuple[tuple[str, float], ...]

    @property
    def us(self) -> float:
        return sum(us for _, us in self.parts)

    def __str__(self) -> str:
        return ", ".join(f"{name} {us:.1f}" for name, us in self.parts)


def link_us(shape: Shape, machine: Machine) -> float:
    """The rows that leave one rank, over its busiest link."""
    busy = {"port": 0.0, "package": 0.0}
    for expert in balanced_ids(0, shape.batch, shape.ep).flatten().tolist():
        link = machine.link(0, expert // (EXPERTS // shape.ep))
        if link:
            busy["package" if link == "package" else "port"] += (
                shape.row_bytes / machine[f"{link}_rate"] / 1000
            )
    return max(busy.values())


def floor(shape: Shape, machine: Machine) -> Floor:
    """Of a dispatch that announces rows and has them read, or of a combine that writes rows and announces them.

    Latencies are those of the farthest rank of the group, there and back; half of one is one way.
    """
    farthest = machine.link(0, shape.ep - 1)
    there_and_back = machine[f"{farthest}_latency_ns"] / 1000
    sync = machine["sync_all_ns"] / 1000
    met = 1.5 * machine["memory_latency_ns"] / 1000  # a word written, and read by another core
    link = ("link", link_us(shape, machine))
    if shape.operator == "combine":
        return Floor(
            (
                link,
                ("rows there and known to be", there_and_back),
                ("all cores have", met),
                ("flag", there_and_back / 2),
            )
        )
    return Floor(
        (
            link,
            ("SyncAll: all cores have staged", sync),
            ("counts", there_and_back / 2),
            ("read, there and back", there_and_back),
        )
    )
