"""``ascend-moe stragglers``: which rank is slow, and files that hold something else."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from ascend_moe.cli import main
from ascend_moe.diagnosis.stragglers import Waiting, standings, verdict

RANKS, STEPS, SLOW = 4, 20, 2


def waits(rank: int) -> np.ndarray:
    """What a rank records: everybody but the slow one waits 400 us for it, and up to 20 for the others."""
    found = np.random.default_rng(rank).integers(0, 20, (STEPS, RANKS))
    if rank != SLOW:
        found[:, SLOW] = 400
    found[:, rank] = 0
    return found


def write(folder: Path) -> list[str]:
    """Both kinds of file, a tensor and a list of them."""
    files = []
    for rank in range(RANKS):
        steps = torch.from_numpy(waits(rank))
        name = folder / f"run7_rank{rank}.{'npy' if rank == 0 else 'pt'}"
        if rank == 0:
            np.save(name, steps.numpy())
        else:
            torch.save(steps if rank == 1 else list(steps), name)
        files.append(str(name))
    return files


def outcome(capsys: Any, words: list[str]) -> tuple[int, str, str]:
    code = main(["stragglers", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_slow_rank_is_named(capsys, tmp_path):
    code, out, error = outcome(capsys, write(tmp_path))
    assert (code, error) == (0, "")
    assert f"rank {SLOW} is slow: the last one in {STEPS} of {STEPS} steps" in out
    rows = [line.split() for line in out.splitlines() if line[:4].strip().isdecimal()]
    assert rows[0][:3] == [str(SLOW), "400", "400"]
    assert [int(row[4]) for row in rows] == [STEPS, 0, 0, 0]
    assert f"rank 0 waits 400 us for rank {SLOW}" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_all_ranks_in_one_file_or_only_some(capsys, tmp_path):
    files = write(tmp_path)
    whole = tmp_path / "all.npy"
    np.save(whole, np.stack([waits(rank) for rank in range(RANKS)], axis=1))
    assert outcome(capsys, [str(whole)]) == outcome(capsys, files)
    code, out, _ = outcome(capsys, [files[3]])
    assert code == 0
    assert "4 ranks (1 recorded)" in out
    assert f"rank {SLOW} is slow" in out


def test_one_step_of_two_ranks(capsys, tmp_path):
    for rank, found in enumerate(([0, 90], [0, 0])):
        torch.save(torch.tensor(found), tmp_path / f"{rank}.pt")
    code, out, _ = outcome(capsys, [str(tmp_path / "0.pt"), str(tmp_path / "1.pt")])
    assert code == 0
    assert "rank 1 is slow: the last one in 1 of 1 steps, 90 us" in out


def test_who_is_early_waits_for_all_and_that_makes_nobody_slow():
    early = np.full((STEPS, RANKS), 1000)
    early[:, 0] = 0
    late = np.zeros((STEPS, RANKS), int)
    waiting = Waiting.of({0: early, 1: late, 2: late, 3: late})
    assert verdict(waiting) == "no rank was waited for longer than the others"
    assert [one.delay for one in standings(waiting)] == [0.0] * RANKS


def test_nobody_is_last_in_most_steps():
    found = np.zeros((4, 4), int)
    found[range(4), [1, 2, 3, 1]] = 100
    said = verdict(Waiting.of({0: found}))
    assert (
        said
        == "no rank is slow in most steps; most often it is rank 1, the last one in 2 of 4 steps"
    )


class Evil:
    """Would leave a file if anybody unpickled it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def wrong_files(folder: Path) -> dict[str, str]:
    """Files that must be refused, and why."""
    trace = folder / "run"
    (folder / "evil1.pt").write_bytes(pickle.dumps(Evil(trace)))
    torch.save(Evil(trace), folder / "evil2.pt")
    np.save(folder / "evil3.npy", np.array([Evil(trace)]), allow_pickle=True)
    (folder / "bytes4.pt").write_bytes(bytes(range(256)))
    (folder / "empty5.pt").touch()
    good = folder / "good6.npy"
    np.save(good, waits(0))
    (folder / "short7.npy").write_bytes(good.read_bytes()[:-8])
    np.save(folder / "floats8.npy", waits(0) / 2)
    torch.save({"waits": torch.zeros(4)}, folder / "dict9.pt")
    torch.save([torch.zeros(3).long(), torch.zeros(4).long()], folder / "uneven10.pt")
    torch.save(torch.zeros(0, 4).long(), folder / "nothing11.pt")
    np.save(folder / "cube12.npy", np.zeros((2, 3, 4), int))
    np.save(folder / "noname.npy", waits(0))
    np.save(folder / "big99.npy", waits(0))
    np.save(folder / "negative1.npy", -waits(0))
    (folder / "folder13").mkdir()
    return {
        "evil1.pt": "tensors alone",
        "evil2.pt": "tensors alone",
        "evil3.npy": "is not a file of np.save with numbers",
        "bytes4.pt": "tensors alone",
        "empty5.pt": "tensors alone",
        "short7.npy": "is not a file of np.save with numbers",
        "floats8.npy": "holds float64",
        "dict9.pt": "holds dict",
        "uneven10.pt": "different kinds",
        "nothing11.pt": "holds nothing",
        "cube12.npy": "(2, 3, 4)",
        "noname.npy": "no number",
        "big99.npy": "rank 99 recorded waits for 4 ranks",
        "negative1.npy": "rank 1 recorded -",
        "folder13": "is no file",
        "gone14": "no such file",
    }


def test_other_files_are_one_line_and_run_nothing(capsys, tmp_path):
    for name, why in wrong_files(tmp_path).items():
        code, out, error = outcome(capsys, [str(tmp_path / name)])
        assert (code, out) == (2, ""), name
        (line,) = error.splitlines()
        assert why in line, name
    assert not (tmp_path / "run").exists()


def test_files_that_do_not_belong_together(capsys, tmp_path):
    files = write(tmp_path)
    np.save(tmp_path / "short3.npy", waits(3)[1:])
    np.save(tmp_path / "again3.npy", waits(3))
    np.save(tmp_path / "all3.npy", np.zeros((2, 4, 4), int))
    for extra, why in (("short3", "19 steps"), ("again3", "second file"), ("all3", "no other")):
        of_three = files[:3] if extra == "short3" else files
        code, _, error = outcome(capsys, [*of_three, str(tmp_path / f"{extra}.npy")])
        assert code == 2
        assert why in error


def test_heat_map(capsys, tmp_path):
    picture = tmp_path / "waits.svg"
    assert outcome(capsys, [*write(tmp_path), "--svg", str(picture)])[0] == 0
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    code, _, error = outcome(capsys, [*write(tmp_path), "--svg", str(tmp_path / "no" / "such.svg")])
    assert (code, len(error.splitlines())) == (2, 1)


def test_without_matplotlib_the_table_comes_and_the_extra_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    files, picture = write(tmp_path), tmp_path / "waits.svg"
    code, out, error = outcome(capsys, [*files, "--svg", str(picture)])
    assert code == 2
    assert "rank 2 is slow" in out
    assert "pip install 'ascend-moe[plots]'" in error
    assert not picture.exists()


@pytest.mark.parametrize("words", [[], ["--top", "0", "x"], ["--top", "many", "x"]])
def test_usage(capsys, words):
    try:
        code = main(["stragglers", *words])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
