"""How much memory this process may still take: what the machine has, and what its cgroup allows."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT = Path("/")
"""Of ``proc`` and ``sys``."""
MARGIN: Final = 64 << 20
"""Bytes that are left for everybody else."""


def require_available(size: int) -> None:
    """Raises OSError (ENOMEM) when so many bytes would leave less than `MARGIN`, ValueError for a negative number."""
    if size < 0:
        raise ValueError(f"{size} bytes of memory were asked for, needed: >= 0")
    available = min(_figures(), default=None)
    if available is not None and size > available - MARGIN:
        text = (
            f"{size >> 20} MiB of memory were asked for, {max(available, 0) >> 20} MiB are available, of which "
            f"{MARGIN >> 20} MiB are kept free"
        )
        raise OSError(errno.ENOMEM, text)


def _figures() -> Iterator[int]:
    for line in _text("proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) << 10
    for line in _text("proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            names = ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = (
                "sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        else:
            continue
        yield from _left_in(path, *names)


def _left_in(path: str, mount: str, limit: str, usage: str, cache: str) -> Iterator[int]:
    """What a cgroup and those around it leave; in a container the mount is often its own."""
    folder = Path(mount) / path.strip("/")
    while True:
        most, used = _text(folder / limit).strip(), _text(folder / usage).strip()
        if most.isdecimal() and used.isdecimal():
            stat = dict(line.split() for line in _text(folder / "memory.stat").splitlines())
            yield int(most) - int(used) + int(stat.get(cache, 0))  # the page cache can go
        if folder == Path(mount):
            return
        folder = folder.parent


def _text(path: str | Path) -> str:
    try:
        return (ROOT / path).read_text()
    except (OSError, ValueError):
        return ""
