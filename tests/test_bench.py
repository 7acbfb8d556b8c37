"""``scripts/bench cpu`` on its smallest world: the figures' shape and arithmetic, wrong results, dead ranks, Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scripts.benchmarks.cpu.report import Cell, as_json, table

ROOT = Path(__file__).resolve().parent.parent
TINY = ["--cases", "seed", "--worlds", "2", "--inner", "1"]
ENDLESS = [*TINY, "--samples", "1000000", "--seconds", "1000"]


@contextlib.contextmanager
def bench(folder: Path, *options: str, program: tuple[str, ...] = ("-m", "scripts.benchmarks.cpu")):
    """The running benchmark, with a temporary folder of its own that must be empty in the end."""
    temporary = folder / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, *program, *options],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
        assert list(temporary.iterdir()) == []
    finally:
        process.kill()
        process.communicate()


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """The two forked ranks, once they are at work."""
    deadline = time.monotonic() + 90
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while time.monotonic() < deadline and process.poll() is None:
        found = [int(pid) for pid in children.read_text().split()]
        if len(found) == 2 and all(_cpu_seconds(pid) > 0.3 for pid in found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"no ranks: {process.communicate(timeout=5)}")


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_tiny_run(tmp_path: Path):
    figures, drawing = tmp_path / "figures.json", tmp_path / "chart.svg"
    options = ["--samples", "3", "--json", str(figures), "--svg", str(drawing)]
    with bench(tmp_path, *TINY, *options) as process:
        output, errors = process.communicate(timeout=110)
        assert process.returncode == 0, errors
    written = json.loads(figures.read_text())
    ops = ["dispatch", "dispatch int8", "combine", "round trip"]
    assert [(cell["case"], cell["world"], cell["op"]) for cell in written["cells"]] == [
        ("seed", 2, op) for op in ops
    ]
    for cell in written["cells"]:
        assert 0.01 < cell["ours_ms"] < 10_000
        assert 0.01 < cell["gloo_ms"] < 10_000
        assert cell["ratio"] == pytest.approx(cell["gloo_ms"] / cell["ours_ms"])
        assert cell["floor_ms"] is None or 0 < cell["floor_ms"] < cell["gloo_ms"]
        assert f"{cell['op']:14}{cell['ours_ms']:10.2f}{cell['gloo_ms']:10.2f}" in output
    assert [mean["ratio"] for mean in written["geomeans"]] == pytest.approx(
        [cell["ratio"] for cell in written["cells"]]  # of one case
    )
    assert written["setup"]["inner"] == 1
    assert ElementTree.parse(drawing).getroot().tag.endswith("svg")


def test_geometric_means_are_per_world_and_op():
    cells = [
        Cell(case, world, op, ours, gloo, gloo / ours, floor)
        for case, world, op, ours, gloo, floor in [
            ("seed", 2, "combine", 1.0, 2.0, 0.5),
            ("c2", 2, "combine", 1.0, 8.0, 0.125),
            ("c3", 2, "combine", 2.0, 1.0, None),
            ("seed", 4, "combine", 1.0, 3.0, None),
            ("seed", 2, "dispatch", 1.0, 5.0, None),
        ]
    ]
    means = {(mean["op"], mean["world"]): mean for mean in as_json(cells, {})["geomeans"]}
    assert means["combine", 2]["ratio"] == pytest.approx(statistics.geometric_mean([2, 8, 0.5]))
    assert means["combine", 2]["over_floor"] == pytest.approx(4.0)  # of 2 and 8
    assert means["combine", 2]["cases"] == 3
    assert means["combine", 4]["ratio"] == pytest.approx(3.0)
    assert means["combine", 4]["over_floor"] is None
    assert means["dispatch", 2]["ratio"] == pytest.approx(5.0)
    assert len(table(cells).splitlines()) == 1 + 5 + 2 + 3


@pytest.mark.parametrize("variant", ["Ours", "Plain"])
def test_a_wrong_result_is_not_timed(tmp_path: Path, variant: str):
    """Rank 1 returns a combine that is off by one part in sixty-four."""
    program = f"""
from scripts.benchmarks.cpu import __main__ as bench, ranks
right = ranks.{variant}.combine
ranks.{variant}.combine = lambda self: right(self) * (1 + ranks.dist.get_rank() / 64)
raise SystemExit(bench.main())
"""
    with bench(tmp_path, *TINY, program=("-c", program)) as process:
        output, errors = process.communicate(timeout=110)
        assert process.returncode == 1
    assert f"rank 1: {variant} differs from the oracle in combine, case seed" in errors
    assert output == ""


def test_a_dead_rank_ends_the_run(tmp_path: Path):
    with bench(tmp_path, *ENDLESS) as process:
        ranks = ranks_of(process)
        os.kill(ranks[1], signal.SIGKILL)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 1
    assert "rank 1 died (exit code -9)" in errors
    assert _gone(ranks)


def test_ctrl_c_ends_the_run(tmp_path: Path):
    with bench(tmp_path, *ENDLESS) as process:
        ranks = ranks_of(process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert _gone(ranks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--worlds", "3", "--cases", "seed"], "must be 2 or more and divide the experts of seed"),
        (["--ops", "nothing"], "--ops"),
        (["--inner", "0"], "must be a whole number from 1"),
    ],
)
def test_wrong_options(options: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    from scripts.benchmarks.cpu.__main__ import parse

    with pytest.raises(SystemExit) as caught:
        parse(options)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
