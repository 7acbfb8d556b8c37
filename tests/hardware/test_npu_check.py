"""scripts/npu_check: the supervisor with ranks that fail, the comparison, and all of it on the virtual NPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from vnpu_launch import clean_environment, require_virtual_npu

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))

from hardware_kit import command, first_steps, phases, report, supervisor  # noqa: E402
from hardware_kit.cases import GOLDEN, SWEEP, TIMING, all_cases, window_mb  # noqa: E402
from hardware_kit.job import Job  # noqa: E402
from hardware_kit.timing import link_bytes  # noqa: E402

CASES = 4


def play(folder: Path, plan: dict, *supervisors: list[int]) -> list[dict[int, str]]:
    """Every supervisor with its ranks, as torchrun would have one per rank."""
    world = sum(map(len, supervisors))
    job = Job(str(folder), "ours", 0, 0, world, "A3", 0, True, 1, 0)
    paths = [str(ROOT / "scripts"), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PLAN": json.dumps(plan)}
    found: dict[int, dict[int, str]] = {}

    def one(number: int, mine: list[int]) -> None:
        ranks = supervisor.Ranks(mine, world, patience_s=3, program="playing_rank")
        found[number] = supervisor.play_phase(job, ranks, CASES, environment)

    threads = [threading.Thread(target=one, args=pair) for pair in enumerate(supervisors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    return [found[number] for number in range(len(supervisors))]


@pytest.fixture(autouse=True)
def little_grace(monkeypatch):
    monkeypatch.setattr(supervisor, "GRACE_S", 0.3)


@pytest.mark.parametrize("supervisors", [[[0, 1]], [[0], [1]]], ids=["one", "torchrun"])
@pytest.mark.parametrize(
    ("do", "why"),
    [
        ("crash", "rank 1: ended with code -6"),
        ("hang", "no progress for 3 s"),
        ("raise", "rank 1: 561002, tiling refused"),
    ],
)
def test_a_failing_rank_costs_one_case(tmp_path, supervisors, do, why):
    plan = {"1": {"rank": 1, "do": do}}
    for failed in play(tmp_path, plan, *supervisors):
        assert list(failed) == [1]
        assert why in failed[1]
    played = {path.name for path in tmp_path.glob("*.pt")}
    assert played == {f"ours.{case}.{rank}.pt" for case in (0, 2, 3) for rank in (0, 1)}


def test_two_failures_and_a_last_one(tmp_path):
    plan = {"0": {"rank": 0, "do": "crash"}, "3": {"rank": 1, "do": "raise"}}
    (failed,) = play(tmp_path, plan, [0, 1])
    assert list(failed) == [0, 3]


def test_first_difference():
    rows = torch.zeros(3, 4, dtype=torch.bfloat16)
    other = rows.clone()
    other[1, 2] = -0.0
    assert report.first_difference([{"x": rows}], [{"x": rows.clone()}]) == ""
    numbers, odd = torch.tensor([1.0, float("nan")]), torch.tensor([1.0, -float("nan")])
    assert report.first_difference([{"x": numbers}], [{"x": odd}]) == ""
    assert report.first_difference([{"x": numbers}], [{"x": torch.ones(2)}]) != ""
    text = report.first_difference([{"x": rows}] * 2, [{"x": rows}, {"x": other}])
    assert text == "rank 1: x, 1 of 12 elements, the first is number 6"


@pytest.mark.parametrize(
    ("phase", "said", "marked", "expected"),
    [
        ("ours", ["ascend-moe: group x: kernels=ours (ABI 1)"], True, ""),
        ("ours", ["ascend-moe: group x: kernels=stock (too old)"], True, "other implementation"),
        ("ours", [], True, "never said"),
        ("ours", [], False, ""),
        ("stock", ["ascend-moe: group x: kernels=ours (ABI 1)"], True, "other implementation"),
        ("stock", ["ascend-moe: group x: kernels=stock (off)"], True, ""),
    ],
)
def test_a_phase_must_run_its_own_implementation(monkeypatch, phase, said, marked, expected):
    names = {command.MARK} if marked else set()
    monkeypatch.setattr(command, "exported_names", lambda path: names)
    facts = {"custom_libraries": ["/x/libcust_opapi.so"], "ours_loaded": True, "said": said}
    assert expected in command.stray(phase, facts)
    assert bool(command.stray(phase, facts)) is bool(expected)
    if phase == "ours":
        assert "never loaded" in command.stray(phase, {**facts, "said": [], "ours_loaded": False})


def test_cases_fit_the_world():
    two, sixteen = all_cases("A3", 2, 10, short=True), all_cases("A3", 16, 40, short=False)
    assert {case.kind for case in two} == {GOLDEN, SWEEP, TIMING}
    assert max(case.ranks for case in two) == 2
    assert max(case.ranks for case in sixteen) == 16
    assert sum(case.kind == GOLDEN for case in sixteen) == 15
    again = all_cases("A3", 16, 40, short=False)
    assert [case.name for case in sixteen] == [case.name for case in again]
    eight = all_cases("A2", 8, 10, short=True)
    assert sum(case.kind == GOLDEN for case in eight) == 3
    assert all(case.body.product == "A2" for case in eight)
    assert any(case.kind == SWEEP and case.body.packed for case in eight)


def test_cases_of_two_servers():
    """Hierarchy and full mesh, which want groups of their own; golden data of both."""
    cases = all_cases("A2", 16, 8, short=True, servers=2)
    found = {(case.kind, case.hierarchy) for case in cases}
    assert found == {(GOLDEN, True), (GOLDEN, False), (SWEEP, True), (SWEEP, False)}
    assert {case.ranks for case in cases} == {16}
    assert {case.body.product for case in cases} == {"A2"}


def test_windows_by_implementation():
    cases = all_cases("A3", 16, 5, short=False)
    assert window_mb("A3", 16, cases, "ascend_moe") == 200
    assert window_mb("A3", 16, cases, "stock") > 900
    eight = all_cases("A2", 8, 5, short=False)
    assert window_mb("A2", 8, eight, "ascend_moe") == window_mb("A2", 8, eight, "stock") > 200


def test_bytes_on_the_link():
    ids = torch.tensor([[0, 5], [4, 1]], dtype=torch.int32)
    call = {
        "expert_ids": ids,
        "x": torch.zeros(2, 1024),
        "moe_expert_num": 8,
        "ep_world_size": 2,
        "quant_mode": 0,
    }
    assert link_bytes(call, 0) == {"dispatch": 2 * 2048, "combine": 2 * 2048}
    assert link_bytes({**call, "quant_mode": 2}, 1)["dispatch"] == 2 * 1028


def test_stock_alone_needs_no_library_of_ours(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ASCEND_MOE_VNPU", raising=False)
    environment = phases.base_environment(None, ["stock"], "A3")
    assert phases.environment_of("stock", environment, 200)["ASCEND_MOE_KERNELS"] == "off"
    with pytest.raises(phases.NotPossible, match=r"ascend_moe\.hardware\.build"):
        phases.base_environment(None, ["stock", "ours"], "A3")


def test_a2_has_eight_ranks_at_most():
    command = [sys.executable, ROOT / "scripts/npu_check", "--virtual", "9", "--product", "A2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert "between 2 and 8 are possible on A2" in done.stderr


def test_usage():
    command = [sys.executable, ROOT / "scripts/npu_check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert "--ranks and --virtual" in done.stderr


@pytest.mark.parametrize(
    ("product", "ranks", "golden"),
    [
        ("A3", 2, 3),
        pytest.param("A3", 4, 13, marks=pytest.mark.ci),
        pytest.param("A2", 8, 3, marks=pytest.mark.ci),
    ],
)
def test_on_the_virtual_npu(tmp_path, product, ranks, golden):
    """All of it: what is played is right, and nothing is left behind."""
    require_virtual_npu()
    file = tmp_path / "found.json"
    command = [sys.executable, ROOT / "scripts/npu_check", "--virtual", str(ranks), "--sweep", "4"]
    command += ["--product", product]
    done = subprocess.run(
        [*command, "--json", file],
        env={**clean_environment(), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "timings are meaningless" in done.stdout
    found = json.loads(file.read_text())
    assert [step["step"] for step in found["first_steps"]] == list(first_steps.NAMES)
    assert [step["finding"] for step in found["first_steps"]] == [""] * len(first_steps.NAMES)
    assert f"rank {ranks - 1} did not come" in found["first_steps"][-1]["evidence"]
    assert (found["virtual"], found["timings_meaningless"], found["good"]) == (True, True, True)
    assert found["product"] == product
    assert len(found["checks"]) == golden + 4
    assert all(check["ours"] == check["stock"] == "equal" for check in found["checks"])
    assert not any(check["difference"] for check in found["checks"])
    assert {timing["op"] for timing in found["timings"]} == {"dispatch", "combine"}
    assert all(timing["ours_us"] > 0 for timing in found["timings"])
    assert found["failed"] == {"stock": {}, "ours": {}}
    assert found["facts"]["ours"]["ours_loaded"]
    assert list(tmp_path.iterdir()) == [file]
