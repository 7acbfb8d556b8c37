"""What a shell may hand over: closed streams, a full disk, devices, absurd sizes, no torch. One line, and never 1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ascend_moe.cli import main

FITS = [
    "buffsize",
    "--product",
    "A3",
    "--max-bs",
    "8",
    "--hidden",
    "7168",
    "--topk",
    "8",
    "--ep",
    "16",
    "--experts",
    "64",
    "--have",
    "4000",
]
COMMANDS = [FITS, ["explain", "X-26"], ["doctor"]]


def shell(words: list[str], redirections: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a process of its own."""
    command = [sys.executable, "-m", "ascend_moe", *words]
    done = subprocess.run(
        ["bash", "-c", f'"$@" {redirections}', "bash", *command],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def refused(outcome: tuple[int, str, str], why: str) -> None:
    code, out, error = outcome
    assert (code, out) == (2, "")
    (line,) = error.splitlines()
    assert line.startswith("ascend-moe ")
    assert why in line


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_output_that_cannot_be_written(words: list[str]):
    refused(shell(words, ">&-"), "standard output is closed")
    refused(shell(words, ">/dev/full"), "No space left on device")


def test_nobody_reads_the_output():
    """As with any command before ``| head``."""
    code, _, error = shell(FITS, "| true; exit ${PIPESTATUS[0]}")
    assert (code, error) == (0, "")


def test_closed_errors_do_not_come_with_the_answer():
    code, out, _ = shell(["check", "nowhere"], "2>&-")
    assert (code, out) == (2, "")
    assert shell(FITS, "2>&- <&-")[0] == 0


@pytest.mark.parametrize("command", ["check", "explain"])
def test_closed_input(command: str):
    refused(shell([command, "-"], "<&-"), "standard input is closed")


READERS = (
    ["check"],
    ["explain"],
    ["doctor", "--compare", "/dev/null"],
    ["buffsize", "--product", "A3", "--max-bs", "8", "--ep", "16", "--model"],
)


@pytest.mark.parametrize("words", READERS, ids=lambda words: words[0])
@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero", "/proc/self/mem", "/dev"])
def test_what_is_no_file_is_read_in_bounds(
    words: list[str], device: str, capsys: pytest.CaptureFixture[str], monkeypatch
):
    if words == ["explain"]:  # a log may have a gigabyte
        monkeypatch.setattr("ascend_moe.diagnosis.report.diagnose.__defaults__", (2**24,))
    assert main([*words, device]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("words", READERS, ids=lambda words: words[0])
def test_a_pipe_into_which_nobody_writes(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
):
    monkeypatch.setattr("ascend_moe.inputs.PIPE_S", 0.2)
    os.mkfifo(tmp_path / "pipe")
    words = [word for word in words if word != "/dev/null"]
    assert main([*words, str(tmp_path / "pipe")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "nothing came out of this pipe for 0.2 s" in line


def test_a_pipe_that_somebody_fills_in_the_end():
    (line,) = shell(["check"], "<(sleep 0.3; echo []; sleep 0.3)")[2].splitlines()
    assert "nothing came" not in line


@pytest.mark.parametrize("words", READERS, ids=lambda words: words[0])
def test_a_hundred_megabytes(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Of zeros on no disk; tests/diagnosis has logs of that size."""
    file = tmp_path / "input"
    with file.open("wb") as stream:
        stream.truncate(100 * 10**6)
    assert main([*words, str(file)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        "buffsize --product A3 --max-bs 1 --hidden 7168 --topk 8 --ep {} --experts 64",
        "buffsize --product A3 --max-bs {} --hidden 7168 --topk 8 --ep 16 --experts 64",
        "demo --ranks {}",
        "demo --bs {}",
        "demo --shared-ranks {}",
        "demo --experts {}",
    ],
)
@pytest.mark.parametrize(
    "number",
    ["-1", "2147483647", "2147483648", "9" * 19, "9" * 30, "9" * 5000, "1e3", "\u0663"],
    ids=range(8),
)
def test_absurd_numbers(words: str, number: str, capsys: pytest.CaptureFixture[str]):
    """Refused as they are, or by a rule of the operators; nothing of that size is made."""
    try:
        code = main(words.replace("{}", number).split())
    except SystemExit as end:
        code = end.code
    out, error = capsys.readouterr()
    assert (code, out) == (2, "") or (code == 1 and words.startswith("buffsize"))
    assert "Traceback" not in error
    assert "importing" not in error


def test_no_torch(tmp_path: Path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise ImportError('libtorch.so:\\nnot here')\n")
    paths = f"{tmp_path}{os.pathsep}{Path.cwd()}"
    code, out, error = shell(["demo"], "", PYTHONPATH=paths)
    assert (code, out) == (2, "")
    assert error.splitlines()[1:] == [
        "ascend-moe demo: torch cannot be imported: libtorch.so: not here"
    ]
    assert shell(["doctor"], "", PYTHONPATH=paths)[0] in (0, 1)
