"""What a kernel left behind when a rank did not come: small JSON files that outlive the process.

``libcust_opapi.so`` writes one per event into ``~/.cache/ascend-moe/errors``, because the process whose kernel gave
up is as a rule torn down by its framework before anybody reads its log.
"""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import NamedTuple

from ascend_moe.native import BuildError, cache_directory

RECENT_S = 24 * 3600


class ErrorRecord(NamedTuple):
    """One event: on ``ep_rank`` of ``group`` the kernel of ``op`` waited in vain for ``missing_rank``."""

    time: float  # seconds since 1970
    pid: int
    group: str
    ep_rank: int
    op: str
    missing_rank: int
    waited_s: float
    virtual_npu: bool
    link: str = "server"  # by which the rank is reached; or "network"
    full_queue: bool = False  # the card took nothing more for it

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.time))
        where = f"{when}, {'virtual NPU, ' if self.virtual_npu else ''}process {self.pid}"
        what = f"rank {self.missing_rank} did not come"
        if self.full_queue:
            what = f"the send queue to rank {self.missing_rank} stayed full"
        elif self.link == "network":
            what += ", over the network"
        return (
            f"{where}: {self.op} on rank {self.ep_rank} of group {self.group} gave up after {self.waited_s:g} s; "
            f"{what}. Look at the log of rank {self.missing_rank} first."
        )


def folder() -> Path:
    """Where the records are."""
    return cache_directory() / "errors"


def recent_records(now: float | None = None) -> list[ErrorRecord]:
    """The records of the last day, oldest first; files that are none are passed over."""
    oldest = (time.time() if now is None else now) - RECENT_S
    found = [record for path in _files() if (record := _read(path))]
    return sorted(record for record in found if record.time >= oldest)


def forget() -> int:
    """Delete all records of this user; returns how many there were."""
    paths = [path for path in _files() if path.lstat().st_uid == os.getuid()]
    for path in paths:
        path.unlink(missing_ok=True)
    return len(paths)


def _files() -> list[Path]:
    try:
        return list(folder().glob("*.json"))
    except BuildError:  # no place for a cache
        return []


def _read(path: Path) -> ErrorRecord | None:
    """None also for a record of another user: a cache directory may be shared."""
    try:
        found = path.lstat()
        if found.st_uid != os.getuid() or not stat.S_ISREG(found.st_mode):
            return None
        data = json.loads(path.read_text())
        old = ErrorRecord._field_defaults  # that an older library does not write
        return ErrorRecord(**{name: {**old, **data}[name] for name in ErrorRecord._fields})
    except (OSError, ValueError, TypeError, KeyError):
        return None
