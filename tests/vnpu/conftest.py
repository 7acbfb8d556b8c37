"""Programs on the virtual NPU: each test starts one, the pytest process itself never loads torch_npu."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from vnpu_launch import start


@pytest.fixture(scope="session")
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run(program, *arguments, product=, environment=, code=, timeout=)``: under ``ascend-moe run``.

    Skips where the virtual NPU cannot be, with its own words. The first use builds it.
    """
    from ascend_moe.vnpu import VirtualNpuError
    from ascend_moe.vnpu.build import virtual_npu

    try:
        virtual_npu()
    except VirtualNpuError as error:
        if "not installed" not in str(error):
            raise
        pytest.skip(str(error))
    return start
