"""The worlds of the tests themselves."""

from __future__ import annotations

import os
import time
from pathlib import Path

import worlds


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_ranks_end_with_the_process_that_forked_them():
    """However that ends. They have copies of its pipes, for whose end pytest-xdist would wait when a worker crashed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        world = worlds.World(2)
        world._folder.cleanup()
        os.write(writer, " ".join(str(process.pid) for process in world.processes).encode())
        os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as pids:
        ranks = [int(pid) for pid in os.read(pids.fileno(), 100).split()]
    os.waitpid(child, 0)
    deadline = time.monotonic() + 30
    while any(map(_lives, ranks)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(ranks) == 2
    assert not any(map(_lives, ranks))
