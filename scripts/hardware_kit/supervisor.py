"""Keeps the ranks of a phase going: starts them, notices crashes and hangs, and goes on behind the case that failed.

There is one supervisor, or under torchrun one per rank, on the same machine. They speak through files in one folder:

    PHASE.ATTEMPT.RANK.case   the number of the case the rank is at; the number of cases when it is through
    PHASE.ATTEMPT.RANK.end    how the rank ended, as JSON: the case it was at, and why ("" when all is well)

A supervisor that sees an end with a reason stops its own ranks. When all have ended, every supervisor draws the same
conclusion from the same files: the case of the first culprit failed, the next attempt begins behind it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hardware_kit.job import Job

STOPPED = "stopped, because another rank failed"
GRACE_S = 5.0


@dataclass(frozen=True)
class Ranks:
    """Which ranks this supervisor has, of how many."""

    mine: Sequence[int]
    world: int
    patience_s: float  # without a new case a rank counts as hanging
    program: str = "hardware_kit.rank"  # the module that plays a rank


def play_phase(
    job: Job, ranks: Ranks, cases: int, environment: Mapping[str, str]
) -> dict[int, str]:
    """Play all cases; returns the failed ones by number, with the reason."""
    failed: dict[int, str] = {}
    while job.first < cases:
        _attempt(job, ranks, cases, environment)
        ends = _all_ends(job, ranks)
        culprits = [end for end in ends if end["why"] not in ("", STOPPED)]
        if not culprits:
            break
        culprit = min(culprits, key=lambda end: end["case"])
        number = max(culprit["case"], job.first)
        failed[number] = f"rank {culprit['rank']}: {culprit['why']}"
        job = replace(job, first=number + 1, attempt=job.attempt + 1)
    return failed


def _attempt(job: Job, ranks: Ranks, cases: int, environment: Mapping[str, str]) -> None:
    """One run of my ranks, until each has left its end."""
    watched = [_Watched(replace(job, rank=rank), ranks.program, environment) for rank in ranks.mine]
    deadline = None
    try:
        while any(one.running for one in watched):
            time.sleep(0.1)
            for one in watched:
                one.look(cases, ranks.patience_s)
            if deadline is None and _failure_seen(job):
                deadline = time.monotonic() + GRACE_S
            if deadline is not None and time.monotonic() > deadline:
                for one in watched:
                    one.stop(STOPPED)
    finally:
        for one in watched:
            one.stop(STOPPED)


class _Watched:
    """A rank's process."""

    def __init__(self, job: Job, program: str, environment: Mapping[str, str]) -> None:
        self.job = job
        with job.path(f"{job.attempt}.{job.rank}.log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", program, json.dumps(asdict(job))],
                env={**environment, "RANK": str(job.rank), "WORLD_SIZE": str(job.world)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running = True
        self._case, self._since = -1, time.monotonic()

    def look(self, cases: int, patience_s: float) -> None:
        """Notice that it ended, or that it does not get on."""
        if not self.running:
            return
        code = self.process.poll()
        if code is not None:
            self._end("" if code == 0 else self._reason(code))
            return
        case = self._at()
        if case != self._case:
            self._case, self._since = case, time.monotonic()
        elif case < cases and time.monotonic() - self._since > patience_s:
            self.stop(f"no progress for {patience_s:g} s")

    def stop(self, why: str) -> None:
        if not self.running:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._end(why)

    def _at(self) -> int:
        try:
            return int(self.job.path(f"{self.job.attempt}.{self.job.rank}.case").read_text())
        except (OSError, ValueError):
            return -1

    def _reason(self, code: int) -> str:
        error = self.job.path(f"{self.job.attempt}.{self.job.rank}.error")
        return error.read_text() if error.is_file() else f"ended with code {code}"

    def _end(self, why: str) -> None:
        self.running = False
        end = {"rank": self.job.rank, "case": max(self._at(), self.job.first), "why": why}
        path = self.job.path(f"{self.job.attempt}.{self.job.rank}.end")
        path.with_suffix(".new").write_text(json.dumps(end))
        path.with_suffix(".new").rename(path)


def _ends(job: Job) -> list[dict[str, Any]]:
    pattern = f"{job.phase}.{job.attempt}.*.end"
    return [json.loads(path.read_text()) for path in sorted(Path(job.folder).glob(pattern))]


def _failure_seen(job: Job) -> bool:
    return any(end["why"] for end in _ends(job))


def _all_ends(job: Job, ranks: Ranks) -> list[dict[str, Any]]:
    """Of all ranks, also those of other supervisors."""
    deadline = time.monotonic() + ranks.patience_s + 4 * GRACE_S
    while len(ends := _ends(job)) < ranks.world:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{ranks.world - len(ends)} ranks left no word; is their node here?")
        time.sleep(0.1)
    return ends
