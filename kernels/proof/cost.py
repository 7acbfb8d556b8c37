"""A model of how long the kernels take on Atlas A3: counted bytes divided by published bandwidths. Nothing is measured.

One rank, balanced routes, no other traffic. A launch is a row of phases with a barrier or a flag behind each; a phase
lasts as long as its scarcest resource: the link, device memory, the busiest core's copies, or its vector unit. What
the model leaves out makes kernels slower, never faster: contention of cores on the link, uneven routes, ranks that
start late, polls that come late. So it ranks designs and finds the bottleneck; it does not predict a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

HIDDEN, TOPK, EXPERTS = 7168, 8, 256
BATCHES, EP_SIZES = (8, 64, 128), (8, 32, 128)
PUBLISHED_US = {
    ("dispatch_int8", 128, 8): 132,
    ("dispatch_int8", 128, 32): 153,
    ("combine", 128, 8): 126,
    ("combine", 128, 32): 151,
}
"""DeepEP-Ascend, low latency, A3: the README of github.com/sgl-project/sgl-kernel-npu; measured, whole calls.

Its kernels follow the shipped ones, for which no published timing was found.
"""


@dataclass(frozen=True)
class Machine:
    """One die of Atlas A3. Bytes and seconds; what has no source is assumed."""

    cores: int = 48
    clock: float = 1.8e9
    """Vector cores and Hz: platform files of the toolkit (Ascend910_93xx)."""
    link: float = 196e9
    """One direction per die: half of the package's 392 GB/s (arXiv 2506.12708)."""
    memory: float = 1.6e12
    """Per die: half of the package's 3.2 TB/s (arXiv 2506.12708)."""
    core_local: float = 32 * 1.8e9
    """One core, one direction: 32 bytes per cycle (platform files)."""
    core_remote_read: float = 5.5e9
    """One core through UB: 4 MB in 758 us (hw-native-sys/pto-isa, tget_bandwidth). All cores: 264 GB/s."""
    core_remote_write: float = 5.5e9
    """Assumed: like reads."""
    remote_latency: float = 0.7e-6
    """A small remote copy: 4 KB in 0.73 us (the same table)."""
    vector: float = 128 / 4 * 1.8e9
    """fp32 elements per second and core: 128 bytes per cycle (platform files)."""
    barrier: float = 1.5e-6
    """SyncAll; assumed."""
    launch: float = 20e-6
    """An empty kernel on all cores of an A2 (asc-devkit, best practices); A3 assumed alike."""


@dataclass(frozen=True)
class Phase:
    """What one rank moves and computes between two barriers."""

    name: str
    items: int
    """What the cores share: the busiest one has the quotient by the number of cores, rounded up."""
    link: float = 0.0
    """Bytes of all cores over the link, in its busier direction."""
    reads: bool = False
    """Whether the cores read them from peers; else they write them."""
    local: float = 0.0
    """Bytes of all cores to and from own device memory, in its busier direction."""
    elements: float = 0.0
    """fp32 elements of all vector instructions of all cores."""
    fixed: float = 0.0
    """Seconds for flags and barriers behind the phase."""

    def seconds(self, machine: Machine) -> float:
        busiest = -(-self.items // machine.cores) / max(self.items, 1)
        remote = machine.core_remote_read if self.reads else machine.core_remote_write
        return self.fixed + max(
            self.link / machine.link,
            (self.link + 2 * self.local) / machine.memory,
            self.link * busiest / remote + self.local * busiest / machine.core_local,
            self.elements * busiest / machine.vector,
        )


@dataclass(frozen=True)
class Shape:
    """A decode step of DeepSeek-V3: H 7168, K 8, 256 experts."""

    batch: int
    ep: int
    int8: bool = False

    @property
    def rows(self) -> int:
        return self.batch * TOPK

    @property
    def row_bytes(self) -> int:
        return HIDDEN * (1 if self.int8 else 2)

    @property
    def token_bytes(self) -> int:
        return HIDDEN * 2

    @property
    def away(self) -> float:
        """The share of rows that change rank."""
        return 1 - 1 / self.ep

    @property
    def count_blocks(self) -> int:
        """Tagged blocks of counts of one source, six numbers each: the total, the mark, one per local expert."""
        return -(-(EXPERTS // self.ep + 2) // 6)


STAGE_PASSES = 6
"""Vector elements per element of a row that is quantised (counters of dispatch)."""
INDEX_PASSES = 9
"""Vector elements per pair and destination for an index list (counters of dispatch)."""
ROW_PASSES, TOKEN_PASSES = 3, 2
"""Vector elements per element of a row that is summed, and of a token (counters of combine)."""


def dispatch_pull(shape: Shape, machine: Machine) -> list[Phase]:
    """Ours: stage tokens, publish the index, pull rows."""
    index_bytes = shape.rows * (8 if shape.int8 else 4) + 32 * shape.count_blocks * shape.ep
    ids = shape.ep * 4 * shape.rows
    counts = machine.cores * 32 * shape.count_blocks * shape.ep
    return [
        Phase(
            "stage",
            shape.batch,
            local=shape.batch * shape.token_bytes,
            elements=shape.int8 * STAGE_PASSES * shape.batch * HIDDEN,
            fixed=machine.barrier,
        ),
        Phase(
            "index",
            shape.ep,
            link=index_bytes * shape.away,
            local=ids,
            elements=INDEX_PASSES * shape.ep * max(shape.rows, 64),
            fixed=2 * machine.remote_latency + machine.barrier,
        ),
        Phase(
            "pull",
            shape.rows,
            link=shape.rows * shape.away * shape.row_bytes,
            reads=True,
            local=shape.rows * shape.row_bytes + counts,
            fixed=machine.remote_latency,
        ),
    ]


def dispatch_push(shape: Shape, machine: Machine) -> list[Phase]:
    """The alternative: rows into slots of the destination's window, counts behind them, then a copy there."""
    payload = shape.rows * shape.row_bytes
    return [
        Phase(
            "push",
            shape.rows,
            link=payload * shape.away,
            local=shape.batch * shape.token_bytes,
            elements=shape.int8 * STAGE_PASSES * shape.batch * HIDDEN + INDEX_PASSES * shape.rows,
            fixed=machine.barrier,
        ),
        Phase(
            "counts",
            shape.ep,
            link=32 * shape.count_blocks * shape.ep,
            fixed=2 * machine.remote_latency + machine.barrier,
        ),
        Phase("copy", shape.rows, local=payload),
    ]


def combine_push(shape: Shape, machine: Machine) -> list[Phase]:
    """Ours: rows into their slots at the source, a flag per rank, the sum."""
    payload = shape.rows * shape.token_bytes
    return [
        Phase(
            "push",
            shape.rows,
            link=payload * shape.away,
            local=payload,
            fixed=machine.barrier,
        ),
        Phase("done", shape.ep, link=32 * shape.ep, fixed=2 * machine.remote_latency),
        _sum(shape, local=payload),
    ]


def combine_pull(shape: Shape, machine: Machine) -> list[Phase]:
    """The alternative: experts' rows staged in the own window, a flag per rank, summed as they are read."""
    payload = shape.rows * shape.token_bytes
    return [
        Phase("stage", shape.rows, local=payload, fixed=machine.barrier),
        Phase("done", shape.ep, link=32 * shape.ep, fixed=2 * machine.remote_latency),
        _sum(shape, link=payload * shape.away, reads=True),
    ]


def _sum(shape: Shape, link: float = 0.0, reads: bool = False, local: float = 0.0) -> Phase:
    elements = (ROW_PASSES * shape.rows + TOKEN_PASSES * shape.batch) * HIDDEN
    return Phase("sum", shape.batch, link=link, reads=reads, local=local, elements=elements)


def seconds(phases: list[Phase], machine: Machine) -> float:
    """Of one launch, the launch itself included."""
    return machine.launch + sum(phase.seconds(machine) for phase in phases)


def roofline(phases: list[Phase], machine: Machine) -> float:
    """The bytes over the link alone, in seconds."""
    return sum(phase.link for phase in phases) / machine.link


def once_per_rank(ep: int) -> float:
    """The share of bytes over the link that would remain if a token went to every destination rank only once.

    Expected for K different experts of 256 at random: distinct destination ranks per token over K.
    """
    local = EXPERTS // ep
    missed = comb(EXPERTS - local, TOPK) / comb(EXPERTS, TOPK)
    return ep * (1 - missed) / TOPK


OPERATORS = {
    "dispatch_bf16": dispatch_pull,
    "dispatch_int8": dispatch_pull,
    "combine": combine_push,
}
"""What the kernels do, by the names of the figures."""


def estimates_us(machine: Machine | None = None) -> dict[str, dict[str, float]]:
    """Operator to "BS <batch> ep <ranks>" to microseconds: the table of ``scripts/bench kernels``."""
    machine = machine or Machine()
    return {
        name: {
            f"BS {batch} ep {ep}": round(
                1e6 * seconds(phases(Shape(batch, ep, name.endswith("int8")), machine), machine), 1
            )
            for batch in BATCHES
            for ep in EP_SIZES
        }
        for name, phases in OPERATORS.items()
    }
