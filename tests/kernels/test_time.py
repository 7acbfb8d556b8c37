"""Simulated time: loops whose time follows from the figures, resources that contend, one timeline per seed."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kernels.proof.floor import floor, link_us
from kernels.proof.machine import FIGURES, assumed, machine
from kernels.proof.server_timing import ServerShape, simulate_servers, wire_us
from kernels.proof.simulator import Schedule, Simulator
from kernels.proof.timing import OPERATORS, Shape, simulate
from kernels.proof.uncertainty import ErrorBar
from scripts.benchmarks.kernel_record import DOCS, RECORD, pages

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("proof_library")

A3 = machine("A3")
BYTES, TURNS = 4096, 16


def timed(kernel, given=A3, *, source=0, readers=(0,), blocks=1, checked=True):
    """Microseconds of a mini kernel on every reading rank; what it reads belongs to one rank."""
    with Simulator(Schedule(unchecked=not checked)) as simulator:
        simulator.time(given)
        data = simulator.put(source, torch.ones(BYTES // 4), "in")
        launches = [
            simulator.launch(
                rank, kernel, [data, simulator.put(rank, torch.zeros(BYTES // 4), "out")], blocks
            )
            for rank in readers
        ]
        assert simulator.run()
        assert simulator.findings == []
        times = [simulator.timing(launch) for launch in launches]
    return [time["ended_us"] - time["began_us"] for time in times]


def test_one_core_reads_from_a_neighbour_as_pto_isa_measured():
    (us,) = timed("mini_get", readers=(1,))
    assert us / TURNS == pytest.approx(36.28 / 50, rel=0.1)  # 36.28 ticks of 50 MHz for 4 KB


def test_a_far_neighbour_costs_its_latency():
    near, far = (timed("mini_get", readers=(reader,))[0] for reader in (1, 16))
    gained = A3["beyond_latency_ns"] - A3["package_latency_ns"]
    slower = BYTES / A3["beyond_rate"] - BYTES / A3["package_rate"]
    assert (far - near) * 1000 / TURNS == pytest.approx(gained + slower, rel=0.01)


def test_pipes_run_beside_each_other_unless_flags_join_them():
    # What it loads, it loads into one place again and again: a hazard, and of no concern here.
    (beside,), (in_turn,) = timed("mini_beside", checked=False), timed("mini_in_turn")
    copy = A3["copy_start_ns"] + BYTES / A3["core_read"]
    assert beside * 1000 == pytest.approx(TURNS * copy + A3["memory_latency_ns"], rel=0.05)
    assert in_turn * 1000 > TURNS * (copy + A3["memory_latency_ns"])


def test_ranks_that_read_from_one_share_its_port():
    slow = A3.with_values(server_rate=4, beyond_rate=4)
    alone, together = (max(timed("mini_get", slow, readers=range(2, 2 + n))) for n in (1, 4))
    assert together * 1000 == pytest.approx(4 * TURNS * BYTES / 4, rel=0.1)
    assert alone < together / 1.5
    mesh = slow.with_values(pairwise=1)  # of A2: a link per pair
    assert max(timed("mini_get", mesh, readers=range(2, 6))) == pytest.approx(alone, rel=0.05)


def test_checks_and_time_are_two_switches():
    assert timed("mini_get", checked=True) == timed("mini_get", checked=False)


def test_the_same_call_takes_the_same_time():
    shape = Shape("combine", 8, 8)
    assert simulate(shape, A3) == simulate(shape, A3)


@pytest.mark.parametrize("operator", OPERATORS)
def test_no_kernel_is_faster_than_its_floor(operator):
    shape = Shape(operator, 8, 8)
    us = simulate(shape, A3).us
    assert us > floor(shape, A3).us > link_us(shape, A3)
    # How cores meet, as the floor has it: at least one SyncAll, or once over memory.
    met = "memory_latency_ns" if operator == "combine" else "sync_all_ns"
    longer = A3.with_values(**{met: A3[met] + 10_000})
    assert simulate(shape, longer).us > us + 9.99
    assert floor(shape, longer).us > floor(shape, A3).us + 9.99


@pytest.mark.parametrize("kernels", ["hierarchy", "mesh"])
def test_between_servers_the_card_is_the_bound(kernels):
    a2, shape = machine("A2"), ServerShape("dispatch_bf16", 8, 2, kernels)
    us = simulate_servers(shape, a2, cores=8).us
    assert us > wire_us(shape, a2) + a2["card_latency_ns"] / 1000
    slow = a2.with_values(card_rate=a2["card_rate"] / 10)
    assert simulate_servers(shape, slow, cores=8).us > 9 * wire_us(shape, a2)


def test_a_card_sends_the_messages_of_its_queues_in_turn():
    """All ranks post to the other server's in the same order; nobody's card waits for another's turn."""
    a2, shape = machine("A2"), ServerShape("dispatch_bf16", 64, 2, "mesh")
    assert simulate_servers(shape, a2).us < 1.7 * wire_us(shape, a2)


def test_rows_of_a_token_cross_once_per_server_or_once_per_expert():
    """K 8 over 16 ranks: half of the experts of every token are in the other server."""
    row, rate = 7168 * 2, machine("A2")["card_rate"] * 1000
    for kernels, rows in (("hierarchy", 8), ("mesh", 8 * 4)):
        shape = ServerShape("combine", 8, 2, kernels)
        assert wire_us(shape, machine("A2")) == pytest.approx(rows * row / rate)


def test_without_a_rank_a_small_call_takes_a_little_longer():
    whole, left = (simulate(Shape("combine", 8, 8, gone), A3) for gone in (None, (3,)))
    assert (len(whole.per_rank), len(left.per_rank)) == (8, 7)
    assert whole.us < left.us < 1.5 * whole.us


def test_a_trace_has_the_pipes_of_every_core_and_the_bytes_of_the_link(tmp_path):
    file, shape = tmp_path / "trace.json", Shape("dispatch_bf16", 8, 2)
    simulate(replace(shape), A3, cores=2, trace=file)
    events = json.loads(file.read_text())["traceEvents"]
    tracks = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert {f"core {core} {pipe}" for core in (0, 1) for pipe in ("S", "MTE2", "MTE3")} <= tracks
    rate = [e["args"]["GB/s"] for e in events if e["ph"] == "C" and e["name"] == "link in, GB/s"]
    rows = shape.batch * 8 // 2 * shape.row_bytes  # half of the rows come from the other rank
    assert rows <= sum(rate) * 500 <= 1.05 * rows


def test_the_command_runs_where_torch_npu_is_installed_and_cann_is_not():
    environment = {name: value for name, value in os.environ.items() if "AUTOLOAD" not in name}
    command = [ROOT / "scripts/bench", "kernels", "--operator", "combine", "--bs", "8", "--ep", "8"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("MODEL")


def test_every_figure_has_a_source_and_every_assumption_a_range():
    for product, figures in FIGURES.items():
        assert figures.keys() == FIGURES["A3"].keys()
        for name, figure in figures.items():
            assert figure.source
            assert figure.assumed or "assumed" not in figure.source, name
        for name, figure in assumed(product).items():
            assert figure.low <= figure.value <= figure.high, name


def test_an_error_bar_adds_what_single_figures_do():
    bar = ErrorBar(10.0, {"a": (7.0, 10.5), "b": (14.0, 11.0), "c": (10.0, 10.0)})
    assert (bar.low, bar.high) == pytest.approx((7.0, 10 + (0.5**2 + 4**2) ** 0.5))
    assert bar.matters == [("b", 4.0), ("a", 3.5), ("c", 0.0)]


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_recorded_times_are_about_those_of_these_kernels(operator):
    """After a change of kernels or figures that shows: scripts/bench kernels --record."""
    recorded = json.loads(RECORD.read_text())["times"]
    (us,) = (
        row["us"]
        for row in recorded
        if (row["operator"], row["batch"], row["ep"]) == (operator, 8, 8)
    )
    assert simulate(Shape(operator, 8, 8), A3).us == pytest.approx(us, rel=0.1)


def test_the_pages_show_what_is_recorded():
    for name, page in pages(json.loads(RECORD.read_text())).items():
        assert (DOCS / name).read_text() == page
