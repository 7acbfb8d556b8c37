"""What the timed simulator believes about hardware: a value for every figure, and where it is from.

Nothing here was measured by us. A figure is *published* (somebody else measured it, or the toolkit lists it) or
*assumed*: then it has a range, and ``scripts/bench kernels --record bars`` says what that does to every result. Rates
are GB/s (bytes per nanosecond), times nanoseconds, the rest cycles of a vector core or what its name says.
A file of measured values takes the place of these (`tuning.py`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Figure:
    """One value with its source; assumed if it has a range."""

    value: float
    source: str
    low: float | None = None
    high: float | None = None

    @property
    def assumed(self) -> bool:
        return self.low is not None


PLATFORM = "platform files of CANN 8.1.RC1, Ascend910_93xx (2025)"
PTO = "pto-isa include/pto/costmodel, fitted on a 910B3 (hw-native-sys/pto-isa 3186c38, 2026-08-21)"
STRATA = "StrataCL (arXiv 2607.26444, 2026-07)"
UBEP = "UBEP (arXiv 2607.06202, 2026-07)"
CLOUDMATRIX = "CloudMatrix384 (arXiv 2506.12708, 2025-06)"

VECTOR_KINDS = ("one_source", "two_sources", "convert", "divide", "compact")
"""Kinds of vector instructions, in the order of ``hostsim_vector_kind``."""
LINKS = ("package", "server", "beyond")
"""How far away a die is, in the order of ``hostsim_machine.link``."""

_CORE = {
    "clock_ghz": Figure(1.8, PLATFORM),
    "issue_cycles": Figure(8, "assumed: an instruction handed to a pipe, with the loop around it", 2, 24),
    "scalar_cycles": Figure(4, "assumed: a word of UB or of the scalar cache, with the arithmetic around it", 1, 16),
    "scalar_miss_ns": Figure(300, "assumed: a line of GM into the scalar cache", 150, 800),
    "flag_cycles": Figure(16, "assumed: a flag from one pipe to another", 4, 60),
    "queue_depth": Figure(32, "assumed: instructions that wait in a pipe", 8, 64),
    "vector_one_source": Figure(1, PTO + ": vmuls, vadds, vabs, vector_dup per 256 bytes"),
    "vector_two_sources": Figure(2, PTO + ": vadd, vmul, vcmp per 256 bytes"),
    "vector_convert": Figure(2, PTO + ": vconv per 256 bytes"),
    "vector_divide": Figure(4, PTO + ": vdiv per 256 bytes"),
    "vector_compact": Figure(14, PTO + ": vreducev2 per 256 bytes"),
    "vector_head_cycles": Figure(10, PTO + ": head of vadd"),
    "vector_tail_cycles": Figure(15, PTO + ": tail of vadd, vmul, vmuls"),
    "copy_start_ns": Figure(58, PTO + ": UB to GM, 1755 bytes at half the peak"),
    "core_read": Figure(57.6, PLATFORM + ": 32 bytes per cycle from memory", 40, 108),
    "core_write": Figure(30.3, PTO + ": UB to GM, 28.19 GiB/s"),
    "core_remote_read": Figure(
        28, "assumed: one core's loop over 4 KB from a neighbour, in and out with nothing overlapped, takes 0.73 us"
        f" (pto-isa, tget_bandwidth), which leaves about this; half of 48 cores fill a link ({UBEP})", 7.1, 40
    ),
    "core_remote_write": Figure(28, "assumed: like reads", 7.1, 40),
    "outstanding_bytes": Figure(16384, "assumed: bytes of one pipe that are on their way", 8192, 65536),
    "card_rate": Figure(25, CLOUDMATRIX + ": 200 Gb/s of RoCE per die; A2: 200 Gb/s per card (product pages)"),
    "card_latency_ns": Figure(3000, "assumed: from a doorbell until a small message is there", 2000, 6000),
    "card_post_ns": Figure(300, "assumed: from one message of a queue to the next", 100, 1000),
    "sync_all_ns": Figure(1500, f"assumed; {UBEP}: SyncAll is 15 % of an operator of 62 us", 700, 3000),
    "launch_ns": Figure(20000, "an empty kernel on all cores of an A2 (asc-devkit, 2026); in no result"),
}  # fmt: skip

FIGURES: dict[str, dict[str, Figure]] = {
    "A3": _CORE
    | {
        "cores": Figure(48, PLATFORM),
        "memory": Figure(1600, CLOUDMATRIX + ": half of the package's 3.2 TB/s"),
        "memory_latency_ns": Figure(115, PTO + ": GM to UB, 30.6 KB at half the peak", 100, 500),
        "pairwise": Figure(0, "one port per die: all peers share it (" + CLOUDMATRIX + ")"),
        "package_rate": Figure(210, STRATA + "; per die and direction"),
        "package_latency_ns": Figure(200, f"{STRATA}; {UBEP} has 218"),
        "server_rate": Figure(170, STRATA),
        "server_latency_ns": Figure(700, f"{STRATA}; {UBEP} has 929 for one hop"),
        "beyond_rate": Figure(150, STRATA),
        "beyond_latency_ns": Figure(2100, f"{STRATA}; {UBEP} has 2500 for two hops"),
        "package_dies": Figure(2, CLOUDMATRIX),
        "server_dies": Figure(16, CLOUDMATRIX),
    },
    "A2": _CORE
    | {
        "cores": Figure(48, "platform files of CANN 8.1.RC1, Ascend910B1 and B2 (2025)"),
        "memory": Figure(1600, "asc-devkit, best practices (2026): 1.6 to 1.8 TB/s"),
        "memory_latency_ns": Figure(115, PTO + ": GM to UB, 30.6 KB at half the peak", 100, 500),
        "pairwise": Figure(1, "HCCS full mesh of 8 cards (pto-isa, profiling-methodology)"),
        "package_rate": Figure(30, "no package: never used"),
        "package_latency_ns": Figure(700, "no package: never used"),
        "server_rate": Figure(28, "HCCS, per pair and direction: 28 (cann-recipes-infer) to 30 (pto-isa)", 25, 30),
        "server_latency_ns": Figure(700, "assumed: as inside a server of A3", 500, 1500),
        "beyond_rate": Figure(25, "never used: between servers there are cards"),
        "beyond_latency_ns": Figure(2100, "never used: between servers there are cards"),
        "package_dies": Figure(1, "one die a card"),
        "server_dies": Figure(8, "8 cards a server"),
    },
}  # fmt: skip
"""Per product, every figure of the model."""


class CMachine(ctypes.Structure):
    """``hostsim_machine`` of ``kernels/hostsim/hostsim.h``."""

    _fields_ = [
        *((name, ctypes.c_double) for name in (
            "clock_ghz", "issue_cycles", "scalar_cycles", "scalar_miss_ns", "flag_cycles",
        )),
        ("queue_depth", ctypes.c_uint32),
        ("pairwise", ctypes.c_uint32),
        ("vector_cycles", ctypes.c_double * len(VECTOR_KINDS)),
        *((name, ctypes.c_double) for name in (
            "vector_head_cycles", "vector_tail_cycles", "copy_start_ns",
            "core_read", "core_write", "core_remote_read", "core_remote_write",
        )),
        ("outstanding_bytes", ctypes.c_uint64),
        ("memory", ctypes.c_double),
        ("memory_latency_ns", ctypes.c_double),
        ("link", ctypes.c_double * 2 * len(LINKS)),
        ("package_dies", ctypes.c_uint32),
        ("server_dies", ctypes.c_uint32),
        *((name, ctypes.c_double) for name in (
            "card_rate", "card_latency_ns", "card_post_ns", "sync_all_ns", "launch_ns",
        )),
    ]  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """The values that one simulation runs with."""

    product: str
    values: Mapping[str, float]

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    @property
    def cores(self) -> int:
        return int(self["cores"])

    def link(self, rank: int, other: int) -> str:
        """Which of `LINKS` joins two ranks; an empty string for a rank and itself."""
        if rank == other:
            return ""
        for name, dies in (("package", self["package_dies"]), ("server", self["server_dies"])):
            if rank // int(dies) == other // int(dies):
                return name
        return "beyond"

    def with_values(self, **values: float) -> Machine:
        """The same machine but for some figures."""
        unknown = sorted(values.keys() - self.values.keys())
        if unknown:
            raise ValueError(f"no figures of a machine: {', '.join(unknown)}")
        return replace(self, values={**self.values, **values})

    def as_struct(self) -> CMachine:
        given = CMachine()
        for name, kind in CMachine._fields_:
            if name == "vector_cycles":
                given.vector_cycles = tuple(self[f"vector_{kind}"] for kind in VECTOR_KINDS)
            elif name == "link":
                for i, link in enumerate(LINKS):
                    given.link[i][:] = (self[f"{link}_rate"], self[f"{link}_latency_ns"])
            else:
                whole = kind in (ctypes.c_uint32, ctypes.c_uint64)
                setattr(given, name, int(self[name]) if whole else self[name])
        return given


def machine(product: str = "A3") -> Machine:
    """The machine as published or assumed."""
    return Machine(product, {name: f.value for name, f in FIGURES[product].items()})


def assumed(product: str) -> dict[str, Figure]:
    """The figures that nobody has published for this hardware."""
    return {name: figure for name, figure in FIGURES[product].items() if figure.assumed}
