"""Run one program on the virtual NPU to its end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PROGRAMS = Path(__file__).parent / "vnpu" / "programs"
PREPARED = Path(__file__).parent / "vnpu" / "prepared.py"

READ_AT_IMPORT = {
    "ASCEND_GLOBAL_LOG_LEVEL",
    "ASCEND_MOE_VNPU_CANN",
    "ASCEND_MOE_VNPU_HCOMM",
    "ASCEND_MOE_VNPU_HIDE",
    "ASCEND_SLOG_PRINT_TO_STDOUT",
    "HCCL_EXEC_TIMEOUT",
}
"""Variables that somebody reads while torch_npu is imported: programs that differ in them have no process in common."""


def require_virtual_npu() -> None:
    """Skip where the virtual NPU cannot be, with its own words. The first use builds it."""
    from ascend_moe.vnpu import VirtualNpuError
    from ascend_moe.vnpu.build import virtual_npu

    try:
        virtual_npu()
    except VirtualNpuError as error:
        if "not installed" not in str(error):
            raise
        pytest.skip(str(error))


def start(
    program: str | Path,
    *arguments: object,
    product: str = "A3",
    environment: dict[str, str] | None = None,
    code: int | None = 0,
    timeout: float = 150,
    fresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run to the end and check the exit code (None: any); nothing that was started outlives the call.

    The program is forked from a process that has torch_npu imported (prepared.py). With ``fresh`` it starts as
    a user's does, by ``ascend-moe run``.
    """
    variables = environment or {}
    words = [str(PROGRAMS / program), *map(str, arguments)]
    if fresh:
        code_found, output = _run_fresh(words, product, variables, timeout)
    else:
        code_found, output = prepared(product, variables).run(words, variables, timeout)
    if code is not None and code_found != code:
        pytest.fail(f"{' '.join(words)}\nended with {code_found}:\n{output[-6000:]}")
    return subprocess.CompletedProcess(words, code_found, output)


def _command(product: str, words: list[str]) -> list[str]:
    return [sys.executable, "-m", "ascend_moe", "run", "--product", product, *words]


def _run_fresh(
    words: list[str], product: str, environment: dict[str, str], timeout: float
) -> tuple[int, str]:
    process = subprocess.Popen(
        _command(product, words),
        cwd=REPOSITORY,
        env=clean_environment() | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        _kill_group(process.pid)
    return process.returncode, output


class Prepared:
    """A process on the virtual NPU that becomes one program after another, in a fork for each."""

    def __init__(self, product: str, variables: dict[str, str]) -> None:
        self._messages, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs:
            self._process = subprocess.Popen(
                _command(product, [str(PREPARED), str(theirs.fileno())]),
                cwd=REPOSITORY,
                env=clean_environment() | variables,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=subprocess.STDOUT,
            )

    def run(self, words: list[str], environment: dict[str, str], timeout: float) -> tuple[int, str]:
        """Exit code and output of a program; its processes are gone afterwards."""
        request = {"program": words[0], "arguments": words[1:], "environment": environment}
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb", buffering=0) as output:
            socket.send_fds(self._messages, [json.dumps(request).encode()], [writer])
            os.close(writer)
            program = int(self._answer())
            try:
                text = _read_to_the_end(output, timeout)
            finally:
                _kill_group(program)
                code = int(self._answer())
        return code, text

    def _answer(self) -> bytes:
        """Of the process; when it has ended instead, what it said."""
        answer = self._messages.recv(100)
        if not answer:
            self._said.seek(0)
            raise RuntimeError(f"prepared.py ended: {self._said.read().decode()[-6000:]}")
        return answer

    def close(self) -> None:
        """It is idle, and has nothing to tidy."""
        self._process.kill()
        self._process.wait()
        self._messages.close()
        self._said.close()


_prepared: dict[tuple[object, ...], Prepared] = {}


def prepared(product: str, variables: dict[str, str]) -> Prepared:
    """The one of this test process for such programs, started with the first of them."""
    early = {name: value for name, value in variables.items() if name in READ_AT_IMPORT}
    key = (product, *sorted(early.items()))
    if key not in _prepared:
        _prepared[key] = Prepared(product, early)
    return _prepared[key]


def close_prepared() -> None:
    while _prepared:
        _prepared.popitem()[1].close()


def _read_to_the_end(output: object, timeout: float) -> str:
    """Until nobody has the other end any more: a process that outlives its parent runs into the time limit."""
    deadline = time.monotonic() + timeout
    parts: list[bytes] = []
    while True:
        ready, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise subprocess.TimeoutExpired("a program of prepared.py", timeout, b"".join(parts))
        parts.append(output.read(1 << 16))
        if not parts[-1]:
            return b"".join(parts).decode()


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def clean_environment() -> dict[str, str]:
    """The environment of a user: without what this test run set for itself or found by chance."""
    dropped = ("ASCEND_", "HCCL_", "TASK_QUEUE_ENABLE", "TORCH_DEVICE_BACKEND_AUTOLOAD")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    paths = [str(REPOSITORY), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
