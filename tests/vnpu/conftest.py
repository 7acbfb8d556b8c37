"""Programs on the virtual NPU, each in processes of its own: the pytest process itself never loads torch_npu."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest
from vnpu_launch import close_prepared, require_virtual_npu, start


@pytest.fixture(scope="session")
def run() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """``run(program, *arguments, product=, environment=, code=, timeout=, fresh=)``: see vnpu_launch.start."""
    require_virtual_npu()
    yield start
    close_prepared()
