"""One rank of one first step: ``python -m hardware_kit.probe_rank JSON``. Only looks; findings.py judges.

The supervisor starts it. What it saw is left as ``PHASE.0.RANK.seen``, JSON. Without torch: ranks meet through files.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from ascend_moe.hardware import error_record
from hardware_kit.estimate import TURNS, TURNS_SHORT, Estimator
from hardware_kit.job import Job
from hardware_kit.measure import OnDevice
from hardware_kit.ping_pong import Burst, throw
from hardware_kit.probe_library import (
    ROOT_INFO_BYTES,
    ROW_BYTES,
    Hccl,
    ProbeLibrary,
    Refused,
    Windows,
    first_custom,
)

FAILED = 3
PAUSE_S = 0.5  # between two looks at the counter


def launch(job: Job, library: ProbeLibrary) -> dict[str, Any]:
    """A launch that must succeed, one that must fail, and a third: an error must not outlive its call."""
    return {
        name: library.cores(blocks, mark=1)._asdict()
        for name, blocks in (("good", 1), ("bad", 0), ("again", 1))
    }


def cores(job: Job, library: ProbeLibrary) -> dict[str, Any]:
    """All granted cores twice, some time apart; a launch before them loads the kernels."""
    granted, mark = library.granted_cores(), secrets.randbits(31)
    library.cores(1, mark)
    first = library.cores(granted, mark)
    time.sleep(PAUSE_S)
    second = library.cores(granted, mark + 1)
    return {
        "granted": granted,
        "mark": mark,
        "first": first._asdict(),
        "second": second._asdict(),
    }


def row(job: Job, library: ProbeLibrary) -> dict[str, Any]:
    """Every rank sends a row of its own to the next and expects that of the rank before."""
    return _exchange(job, library, absent=None)


def timeout(job: Job, library: ProbeLibrary) -> dict[str, Any]:
    """The last rank lives and opens its window, but never sends: rank 0 must say so."""
    return _exchange(job, library, absent=job.world - 1)


def queues(job: Job, library: ProbeLibrary) -> dict[str, Any]:
    """The windows of the own server and the queues to the others are found."""
    return _over_cards(job, library, [])


def message(job: Job, library: ProbeLibrary) -> dict[str, Any]:
    """One message, then one of every size."""
    return _over_cards(job, library, [Burst(1, 1, size) for size in MESSAGE_BYTES])


def wrap(job: Job, library: ProbeLibrary) -> dict[str, Any]:
    """Many messages in a row, so that every number of a queue wraps."""
    return _over_cards(job, library, [_wrapping(job)])


def burst(job: Job, library: ProbeLibrary) -> dict[str, Any]:
    """Large messages, with nothing but a tag behind them that says that they are there."""
    return _over_cards(job, library, [Burst(4 if job.short else 64, 32, 64 << 10)])


def silent(job: Job, library: ProbeLibrary) -> dict[str, Any]:
    """The last rank lives, but never sends: the rank opposite must say so."""
    return _over_cards(job, library, [Burst(1, 1, 64)], absent=job.world - 1)


def figures(job: Job, library: ProbeLibrary) -> dict[str, Any]:
    """For --tune: rank 0 measures the machine, the others lend their windows."""

    def play(group: str, windows: Windows, nonce: int) -> dict[str, Any]:
        if job.rank != 0:
            return {}
        reached = [rank for rank, base in enumerate(windows.base) if base]
        turns = TURNS_SHORT if job.short else TURNS
        loop, cores = OnDevice(library, group, windows), library.granted_cores()
        return {"figures": Estimator(loop, job.product, 0, reached, cores, turns).figures()}

    return _in_group(job, library, play, card=job.servers > 1)


MESSAGE_BYTES = (64, 512, 4 << 10, 64 << 10, 128 << 10)
WRAP_POSTS, WRAP_POSTS_SHORT, WRAP_MESSAGES = 10**6, 70_000, 255


def _wrapping(job: Job) -> Burst:
    """At least so many posts on every queue; 2^16 is where a doorbell wraps.

    In many launches, as the time limit is one launch's: where ranks share a processor a turn takes long.
    """
    posts, turns = (WRAP_POSTS_SHORT, 10) if job.short else (WRAP_POSTS, 100)
    return Burst(turns, WRAP_MESSAGES, 64, -(-posts // (turns * (WRAP_MESSAGES + 1))))


def _over_cards(
    job: Job, library: ProbeLibrary, bursts: list[Burst], absent: int | None = None
) -> dict[str, Any]:
    def play(group: str, windows: Windows, nonce: int) -> dict[str, Any]:
        return {"runs": throw(library, group, windows, nonce, job.opposite, bursts)}

    return _in_group(job, library, play, absent=absent, card=True)


STEPS: dict[str, Callable[[Job, ProbeLibrary], dict[str, Any]]] = {
    step.__name__: step
    for step in (launch, cores, row, timeout, queues, message, wrap, burst, silent, figures)
}


def row_of(rank: int, nonce: int) -> bytes:
    """What a rank sends: no two ranks and no two runs the same."""
    return nonce.to_bytes(4, "little") + bytes((7 * rank + at) % 251 for at in range(4, ROW_BYTES))


def _exchange(job: Job, library: ProbeLibrary, absent: int | None) -> dict[str, Any]:
    def play(group: str, windows: Windows, nonce: int) -> dict[str, Any]:
        return _play(job, library, group, windows, nonce)

    return _in_group(job, library, play, absent=absent)


def _in_group(
    job: Job,
    library: ProbeLibrary,
    play: Callable[[str, Windows, int], dict[str, Any]],
    *,
    absent: int | None = None,
    card: bool = False,
) -> dict[str, Any]:
    """In a communicator of all ranks, whose windows are found: what all do but the absent one."""
    hccl = Hccl(library)
    with _told("no_communicator"):
        if job.rank == 0:
            _leave(job, "root", hccl.root() + secrets.token_bytes(4))
        shared = _take(job, "root", 0)
        root, nonce = shared[:ROOT_INFO_BYTES], int.from_bytes(shared[ROOT_INFO_BYTES:], "little")
        group = hccl.group(root, job.rank, job.world)
    with _told("no_windows"):
        windows = library.windows(group, card=card)
    seen: dict[str, Any] = {"provider": windows.provider, "window_bytes": windows.bytes}
    _meet(job, "found")
    if job.rank != absent:
        seen |= play(group, windows, nonce | 1)
    _meet(job, "through")  # a communicator lives until every rank is through
    with contextlib.suppress(Refused):
        hccl.close()
    return seen


class Stopped(Exception):
    """The rank cannot go on; what it has seen."""

    def __init__(self, seen: dict[str, Any]) -> None:
        super().__init__(next(iter(seen.values())))
        self.seen = seen


@contextlib.contextmanager
def _told(key: str) -> Iterator[None]:
    try:
        yield
    except (Refused, OSError) as error:
        raise Stopped({key: str(error)}) from error


def _play(
    job: Job, library: ProbeLibrary, group: str, windows: Windows, nonce: int
) -> dict[str, Any]:
    began = time.monotonic()
    status, text, received, record = library.row(group, windows, nonce, row_of(job.rank, nonce))
    wanted = row_of((job.rank - 1) % job.world, nonce)
    return {
        "status": status,
        "text": text,
        "waited_s": round(time.monotonic() - began, 3),
        "limit_s": float(os.environ["ASCEND_MOE_TIMEOUT_S"]),
        "differing": [at for at in range(ROW_BYTES) if received[at] != wanted[at]],
        "record": record,
        "nonce": nonce,
        "files": [
            found._asdict() for found in error_record.recent_records() if found.group == group
        ],
    }


def _leave(job: Job, name: str, data: bytes) -> None:
    path = job.path(f"{name}.{job.rank}")
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(data)
    new.rename(path)


def _take(job: Job, name: str, rank: int) -> bytes:
    """What a rank has left, or will; the supervisor ends a wait in vain."""
    path = job.path(f"{name}.{rank}")
    while not path.is_file():
        time.sleep(0.01)
    return path.read_bytes()


def _meet(job: Job, name: str) -> None:
    _leave(job, name, b"")
    for rank in range(job.world):
        _take(job, name, rank)


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    job.path(f"{job.attempt}.{job.rank}.case").write_text("0")
    code = 0
    try:
        path, _ = first_custom(os.environ)
        if path is None:
            raise Refused("there is no library of ours on ASCEND_CUSTOM_OPP_PATH")
        seen = STEPS[job.phase.removeprefix("first-")](job, ProbeLibrary(path, job.device))
        _leave(job, "seen", json.dumps(seen).encode())
    except (Refused, Stopped, OSError, AttributeError) as error:
        traceback.print_exc()
        if isinstance(error, Stopped):
            _leave(job, "seen", json.dumps(error.seen).encode())
        job.path(f"{job.attempt}.{job.rank}.error").write_text(str(error) or repr(error))
        code = FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # no destructor may wait for a kernel that hangs


if __name__ == "__main__":
    main()
