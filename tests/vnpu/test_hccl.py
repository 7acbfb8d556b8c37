"""Communicators between processes."""

import subprocess
import sys

import pytest
from vnpu_launch import PROGRAMS, clean_environment


def test_collectives(run):
    """With a small buffer, so that the data needs several rounds."""
    assert "collectives right" in run("collectives.py", environment={"HCCL_BUFFSIZE": "1"}).stdout


@pytest.mark.parametrize("size", ["512MB", "4294967296"])
def test_a_size_that_hccl_refuses(run, size):
    """No communicator, and so no group: what torch_npu reads as a number (the rest it refuses itself) HCCL may not."""
    done = run("collectives.py", environment={"HCCL_BUFFSIZE": size}, code=None)
    assert done.returncode != 0
    assert f"EI0001: Value {size} for environment variable HCCL_BUFFSIZE is invalid" in done.stdout


def test_windows(run):
    """Twice the group's own size for every rank, and no memory before it is touched."""
    assert "windows right" in run("lazy_windows.py").stdout


@pytest.mark.usefixtures("run")
def test_small_shared_memory():
    """In many containers /dev/shm has 64 MB; here 1 MB, in a mount namespace of its own."""
    namespace = ["unshare", "--mount", "--map-root-user"]
    if subprocess.run(
        [*namespace, "mount", "-t", "tmpfs", "t", "/dev/shm"], check=False
    ).returncode:
        pytest.skip("this machine allows no mount namespaces")
    command = [sys.executable, "-m", "ascend_moe", "run", str(PROGRAMS / "lazy_windows.py")]
    script = 'mount -t tmpfs -o size=1m none /dev/shm && exec "$@"'
    done = subprocess.run(
        [*namespace, "bash", "-c", script, "bash", *command],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "windows right" in done.stdout, done.stdout + done.stderr
