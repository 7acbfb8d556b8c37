"""Programs on the virtual NPU: each test starts one, the pytest process itself never loads torch_npu."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from vnpu_launch import require_virtual_npu, start


@pytest.fixture(scope="session")
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run(program, *arguments, product=, environment=, code=, timeout=)``: under ``ascend-moe run``."""
    require_virtual_npu()
    return start
