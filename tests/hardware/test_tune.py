"""scripts/npu_check --tune: in full on the virtual NPU, where it says that nothing of it means anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from vnpu_launch import clean_environment, require_virtual_npu

from kernels.proof.tuning import load

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))

from hardware_kit import command  # noqa: E402


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=clean_environment() | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def tune(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    require_virtual_npu()
    two = ("--virtual", "2", "--skip-first-steps", "--patience", "100")
    file = ("--tune", str(tmp_path / "tuning.json"))
    check = ROOT / "scripts/npu_check"
    return run(check, *two, *file, *arguments, TMPDIR=str(tmp_path), **environment)


def test_in_full(tmp_path):
    done = tune(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "virtual NPU: what follows is meaningless" in done.stdout
    file = tmp_path / "tuning.json"
    assert list(tmp_path.iterdir()) == [file]
    tuning = load(file, "A3")
    assert tuning.virtual
    # How long anything took means nothing, and what drowned in noise is not there: but the time model takes the rest.
    assert tuning.figures["cores"] == 48
    assert all(tuning.machine[name] == value for name, value in tuning.figures.items())
    chosen = {(one.operator, one.ep, one.rows) for one in tuning.cores}
    assert chosen == {(op, 2, 64) for op in ("dispatch_bf16", "dispatch_int8", "combine")}
    # Every choice is among what was tried, and as good as any.
    tried = json.loads(file.read_text())["us_by_cores"]
    for one in tuning.cores:
        us = tried[f"{one.operator} rows {one.rows}"]
        assert set(us) == {"16", "48"}
        assert us[str(one.cores)] <= 1.01 * min(us.values())
    bench = ("-m", "scripts.benchmarks.kernels", "--bs", "8", "--ep", "8", "--operator", "combine")
    said = run(*bench, "--tuning", file, TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    assert said.stdout.startswith(f"MEANINGLESS: {file} was measured on the virtual NPU\n")
    (cores,) = {one.cores for one in tuning.cores if one.operator == "combine"}
    assert f"combine            8    8{cores:7}" in said.stdout


def test_a_rank_that_fails(tmp_path):
    """Nothing is written and nothing left behind; the rank and its error are told."""
    done = tune(tmp_path, ASCEND_MOE_VNPU_REFUSE_LAUNCH="ascend_moe_measure")
    assert done.returncode == 1
    assert "nothing is written, the figures: rank 0: SYNC_ALL on 48 cores" in done.stderr
    assert "this launch is refused on purpose" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tune", "/nowhere/file.json"], "there is no folder /nowhere"),
        (["--tune", "x.json", "--first-steps"], "--tune: it plays ours, behind the first steps"),
        (["--tune", "x.json", "--phases", "stock"], "--tune: it plays ours"),
    ],
)
def test_usage(arguments, said, capsys, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(SystemExit, match="2"):
        command.main("", ["--virtual", "2", *arguments])
    assert said in capsys.readouterr().err


def test_the_model_names_what_is_wrong_in_a_file(tmp_path):
    file = tmp_path / "tuning.json"
    file.write_text('{"product": "A3", "machine": {"speed": 1}}')
    bench = ("-m", "scripts.benchmarks.kernels", "--tuning", file)
    done = run(*bench, TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    assert done.returncode == 2
    assert f"error: {file}: machine.speed is no figure of the model" in done.stderr
