"""Memory is compared with what the machine and the cgroup leave; both are played by files here."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ascend_moe import available
from ascend_moe.cli import main

V2 = {
    "proc/self/cgroup": "0::/outer/inner\n",
    "sys/fs/cgroup/outer/memory.max": str(600 << 20),
    "sys/fs/cgroup/outer/memory.current": str(100 << 20),
    "sys/fs/cgroup/outer/memory.stat": f"anon 1\ninactive_file {50 << 20}\n",
    "sys/fs/cgroup/outer/inner/memory.max": "max\n",
    "sys/fs/cgroup/outer/inner/memory.current": "5\n",
}
# In v1 each group of controllers has a tree of its own, and no limit is a number that no machine has.
V1 = {
    "proc/self/cgroup": "12:pids:/x\n7:cpu,memory:/outer/inner\n1:name=systemd:/outer\n0::/\n",
    "sys/fs/cgroup/memory/outer/memory.limit_in_bytes": str(600 << 20),
    "sys/fs/cgroup/memory/outer/memory.usage_in_bytes": str(100 << 20),
    "sys/fs/cgroup/memory/outer/memory.stat": f"rss 1\ninactive_file 7\ntotal_inactive_file {50 << 20}\n",
    "sys/fs/cgroup/memory/outer/inner/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/outer/inner/memory.usage_in_bytes": "5\n",
}


@pytest.fixture(params=[V2, V1], ids=["v2", "v1"])
def machine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A machine with 1000 MiB, and a cgroup in one of 600 MiB that uses 100 and could drop 50 of them."""
    monkeypatch.setattr(available, "ROOT", tmp_path)
    files = {"proc/meminfo": f"MemTotal: 1 kB\nMemAvailable: {1000 << 10} kB\n"} | request.param
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_memory_is_compared_with_what_the_cgroup_leaves(machine: Path):
    left = (550 << 20) - available.MARGIN
    available.require_available(left)
    with pytest.raises(OSError, match=r"486 MiB of memory .* 550 MiB are available") as found:
        available.require_available(left + 1)
    assert found.value.errno == errno.ENOMEM
    (machine / "proc/self/cgroup").unlink()
    available.require_available(left + 1)
    with pytest.raises(OSError, match="1000 MiB are available"):
        available.require_available(1000 << 20)
    (machine / "proc/meminfo").unlink()
    available.require_available(1 << 60)  # nobody says how much there is
    with pytest.raises(ValueError, match=">= 0"):
        available.require_available(-1)


def test_a_container_sees_its_own_cgroup_at_the_top(machine: Path):
    """The path that the process is told is then that of the host, which is not there."""
    (top,) = (path.parent for path in machine.rglob("memory.stat"))
    for path in list(top.glob("memory.*")):
        path.rename(top.parent / path.name)
    with pytest.raises(OSError, match="550 MiB are available"):
        available.require_available(550 << 20)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("words", ["--ranks 16 --bs 512 --quant 0", "--ranks 768 --bs 64"])
def test_a_legal_demo_that_the_machine_cannot_hold(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HCCL_BUFFSIZE", "4000")
    assert main(["demo", *words.split()]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    assert line.startswith("ascend-moe demo: ")
    assert "MiB of memory were asked for, 550 MiB are available" in line
