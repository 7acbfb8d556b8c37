"""Before any test imports torch: with torch_npu installed and no CANN, plain ``import torch`` fails."""

import os
import shutil
import signal

import pytest

from ascend_moe.hardware import error_record

os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("ASCEND_MOE_VNPU_CHECKS", None)  # a user's switch: no test runs without the checks

# A shell's background job ignores Ctrl-C and hands that on; the tests of Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_records_before = set(error_record.folder().glob("*.json"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """When all workers are done: what failed kernels left for ``ascend-moe doctor`` goes away again."""
    if not hasattr(session.config, "workerinput"):
        for path in set(error_record.folder().glob("*.json")) - _records_before:
            path.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def compiler() -> str:
    """The C++ compiler. Skips without one: the package itself works there, its kernels cannot be compiled."""
    found = shutil.which("g++") or shutil.which("c++")
    if found is None:
        pytest.skip("g++ is not installed; apt-get install g++")
    return found
