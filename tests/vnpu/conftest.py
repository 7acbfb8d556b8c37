"""Programs on the virtual NPU: each test starts one, the pytest process itself never loads torch_npu."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest
from vnpu_launch import require_virtual_npu, start

from ascend_moe.hardware.error_record import folder


@pytest.fixture(autouse=True, scope="session")
def _no_error_records_left() -> Iterator[None]:
    """What kernels that gave up on purpose leave for ``ascend-moe doctor`` goes away again."""
    before = set(folder().glob("*.json"))
    yield
    for path in set(folder().glob("*.json")) - before:
        path.unlink()


@pytest.fixture(scope="session")
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run(program, *arguments, product=, environment=, code=, timeout=)``: under ``ascend-moe run``."""
    require_virtual_npu()
    return start
