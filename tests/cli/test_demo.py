"""``ascend-moe demo``: exit codes, a mismatch that is seen, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ascend_moe.cli import main
from ascend_moe.cli.demo_layer import Layer

SMALL = ["demo", "--ranks", "4", "--bs", "3", "--hidden", "1024", "--topk", "2", "--experts", "4"]


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["--quant", "none"],
        ["--quant", "0", "--seed", "7"],
        ["--product", "A2", "--quant", "int8", "--ranks", "16", "--experts", "16"],
        ["--shared-ranks", "0"],
    ],
    ids=" ".join,
)
def test_demo_agrees(changes: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(SMALL + changes) == 0
    out, err = capsys.readouterr()
    assert "bit for bit" in out.splitlines()[-1]
    ranks = 16 if "16" in changes else 4
    assert len(out.splitlines()) == ranks + 4
    assert f"starting {ranks} ranks" in err


def test_demo_sees_a_mismatch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    correct = Layer.reference

    def wrong(layer: Layer):
        expected = correct(layer)
        expected.combined[2][0, 0] += 1
        return expected

    monkeypatch.setattr(Layer, "reference", wrong)
    assert main(SMALL) == 1
    assert "MISMATCH: ranks 2 differ" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        (["--hidden", "512"], "X-25"),
        (["--experts", "5"], "X-10"),
        (["--ranks", "1"], "X-04"),
        (["--topk", "17", "--experts", "20"], "X-26"),
        (["--product", "A2"], "X-05"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_illegal_layer_is_refused_before_it_starts(
    changes: list[str], rule: str, capsys: pytest.CaptureFixture[str]
):
    assert main(SMALL + changes) == 2
    out, err = capsys.readouterr()
    assert not out
    assert rule in err
    assert "starting" not in err


@pytest.mark.parametrize("bad", [["--bs", "many"], ["--bs", "0"], ["--quant", "1"], ["--nonsense"]])
def test_usage_errors(bad: list[str]):
    with pytest.raises(SystemExit) as caught:
        main(SMALL + bad)
    assert caught.value.code == 2


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_the_demo(how: signal.Signals, tmp_path: Path):
    """Ctrl-C ends all ranks; so does the death of the parent."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "ascend_moe", "demo", "--bs", "32"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        text=True,
    )
    assert demo.stderr is not None
    for line in demo.stderr:
        if "starting" in line:
            break
    deadline = time.monotonic() + 30
    while len(ranks := _children(demo.pid)) < 16:
        assert time.monotonic() < deadline, "the ranks did not start"
        time.sleep(0.01)
    demo.send_signal(how)
    demo.communicate(timeout=30)
    assert demo.returncode == (130 if how == signal.SIGINT else -how)
    deadline = time.monotonic() + 10
    while left := [rank for rank in ranks if _runs(rank)]:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.05)
    assert not list(tmp_path.iterdir())


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
