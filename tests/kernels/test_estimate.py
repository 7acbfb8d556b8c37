"""The figures that scripts/npu_check --tune measures: on the timed simulator they are those that went in."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))

from hardware_kit.estimate import LARGE_BYTES, LEFT_OUT, Estimator, Times, Work  # noqa: E402
from hardware_kit.measure import MAX_CORES, SLOTS, Measuring  # noqa: E402

from kernels.proof.arguments import words  # noqa: E402
from kernels.proof.group import KernelGroup  # noqa: E402
from kernels.proof.machine import FIGURES, Machine, machine  # noqa: E402
from kernels.proof.simulator import Schedule, Simulator  # noqa: E402

pytestmark = pytest.mark.usefixtures("proof_library")

CONTROL_BYTES, MARK = 256 << 10, 77
WINDOW_BYTES = CONTROL_BYTES + MAX_CORES * SLOTS * LARGE_BYTES


class Simulated:
    """Loops in the timed simulator, each in a world of its own."""

    def __init__(self, given: Machine, ranks: int, *, checked: bool = False) -> None:
        self._given, self._ranks, self._checked = given, ranks, checked

    def __call__(
        self, work: Work, *, peer: int, other: int, turns: int, size: int, cores: int, launches: int
    ) -> Times:
        with Simulator(Schedule(unchecked=not self._checked, max_steps=1 << 40)) as simulator:
            simulator.time(self._given)
            group = KernelGroup(simulator, self._ranks, WINDOW_BYTES, cores=4, opened=False)
            group.open(5)
            assert simulator.run()
            for window in group.windows:  # what is read has been written once
                simulator.write(window + CONTROL_BYTES, bytes(WINDOW_BYTES - CONTROL_BYTES))
            report = simulator.alloc(0, MAX_CORES * 32, "report")
            wanted = words(Measuring(work, peer, other, turns, size, MARK))
            numbers = [
                simulator.launch(
                    0, "ascend_moe_measure", [group.contexts[0], report, *wanted], cores
                )
                for _ in range(launches)
            ]
            assert simulator.run(), simulator.deadlock
            assert simulator.findings == []
            blocks, _ = simulator.get(report, torch.empty(MAX_CORES, 8, dtype=torch.int32))
            assert (blocks[:cores, 0] == MARK).all()
            host_us = simulator.timing(numbers[-1])["ended_us"]
            return Times(blocks[:cores, 1].tolist(), round(1000 * host_us))


@pytest.mark.parametrize(
    ("product", "ranks", "changes"),
    [
        ("A3", 5, {"outstanding_bytes": 65536}),
        ("A2", 3, {"outstanding_bytes": 65536, "core_remote_read": 20, "server_rate": 26}),
    ],
)
def test_the_figures_that_went_in_come_out(product, ranks, changes):
    given = machine(product).with_values(**changes, sync_all_ns=2100, memory_latency_ns=300)
    found = Estimator(Simulated(given, ranks), product, 0, range(ranks), 48).figures()
    assert found.keys() <= FIGURES[product].keys()
    expected = {name for name in given.values if name.split("_")[0] not in ("beyond", "card")}
    left = {name for text in LEFT_OUT for name in text.split(", ")}
    assert {n for n in expected if n not in left and not n.startswith("vector")} - found.keys() == (
        {"package_rate", "package_latency_ns"} if product == "A2" else set()
    )
    for name, value in found.items():
        assert value == pytest.approx(
            given[name], rel=0.2, abs=30 if name.endswith("_ns") else 0
        ), name


def test_the_loops_break_no_rule():
    loop = Simulated(machine("A3"), 2, checked=True)
    for work in Work:
        size = {Work.HOPS: 32, Work.LOADS: 4096, Work.STORES: 4096}.get(work, 0)
        times = loop(work, peer=1, other=0, turns=12, size=size, cores=3, launches=2)
        assert len(times.ticks) == 3


def test_the_structure_is_that_of_the_kernel():
    assert ctypes.sizeof(Measuring) == 24
