"""Start one program on the virtual NPU and wait for its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PROGRAMS = Path(__file__).parent / "vnpu" / "programs"


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
) -> subprocess.CompletedProcess[str]:
    """Run to the end and check the exit code (None: any); nothing that was started outlives the call."""
    command = [sys.executable, "-m", "ascend_moe", "run", "--product", product]
    command += [str(PROGRAMS / program), *map(str, arguments)]
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=clean_environment() | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if code is not None and process.returncode != code:
        pytest.fail(f"{' '.join(command)}\nended with {process.returncode}:\n{output[-6000:]}")
    return subprocess.CompletedProcess(command, process.returncode, output)


def clean_environment() -> dict[str, str]:
    """The environment of a user: without what this test run set for itself or found by chance."""
    dropped = ("ASCEND_", "HCCL_", "TASK_QUEUE_ENABLE", "TORCH_DEVICE_BACKEND_AUTOLOAD")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    paths = [str(REPOSITORY), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
