"""Worlds of CPU ranks for tests: torch is imported once, ranks are forked, and a world serves many cases.

A world runs functions: ``world.run(function, *args)`` calls ``function(rank, *args)`` on every rank and returns the
results by rank; an exception on a rank comes back as that object. Functions must be importable (module level).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # seconds of work for a rank that compiles: before the ranks part
import torch.distributed as dist
import torch.multiprocessing as mp

import ascend_moe

ascend_moe.register()

DISTRIBUTED = {"ASCEND_MOE_CPU_TRANSPORT": "distributed"}
"""The environment of ranks whose rows travel over torch.distributed."""


class RankDied(Exception):
    """The process of a rank ended without an answer."""


class World:
    """``size`` forked processes with an initialised gloo group each."""

    def __init__(
        self, size: int, *, tp: int = 1, environments: Sequence[dict[str, str]] = ({},)
    ) -> None:
        """environments: variables of the ranks, taken in turn."""
        self.size, self.tp = size, tp
        self._folder = tempfile.TemporaryDirectory(prefix="ascend-moe-test-")
        context = mp.get_context("fork")
        self._pipes: list[Connection] = []
        self.processes = []
        for rank in range(size):
            ours, theirs = context.Pipe()
            store = str(Path(self._folder.name) / "store")
            process = context.Process(
                target=_serve,
                args=(rank, size, tp, store, theirs, environments[rank % len(environments)]),
                daemon=True,
            )
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self.processes.append(process)

    def run(
        self,
        function: Callable[..., Any],
        *args: Any,
        ranks: Sequence[int] | None = None,
        timeout: float = 120,
    ) -> list[Any]:
        """The results of ``function(rank, *args)``; raises the first exception of any rank."""
        outcomes = self.outcomes(function, *args, ranks=ranks, timeout=timeout)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return outcomes

    def outcomes(
        self,
        function: Callable[..., Any],
        *args: Any,
        ranks: Sequence[int] | None = None,
        timeout: float = 120,
    ) -> list[Any]:
        """The same, with the exceptions in place of the results."""
        chosen = range(self.size) if ranks is None else ranks
        for rank in chosen:
            self._pipes[rank].send((function, args))
        deadline = time.monotonic() + timeout
        outcomes: list[Any] = []
        for rank in chosen:
            if not self._pipes[rank].poll(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"rank {rank} did not answer within {timeout} s")
            try:
                outcomes.append(self._pipes[rank].recv())
            except (
                EOFError,
                ConnectionResetError,
            ):  # the second: what it was told was still unread
                outcomes.append(RankDied(f"rank {rank}"))
        return outcomes

    def close(self) -> None:
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in self.processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in self._pipes:
            pipe.close()
        self._folder.cleanup()


def _serve(
    rank: int, size: int, tp: int, store: str, pipe: Connection, environment: dict[str, str]
) -> None:
    _end_with_the_parent()
    os.environ.update(environment)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    # TP pairs are neighbours, EP groups take every tp-th rank (the layout of the documents' examples).
    GROUPS["ep"] = _own_group([list(range(plane, size, tp)) for plane in range(tp)], rank)
    GROUPS["tp"] = (
        _own_group([[first, first + 1] for first in range(0, size, 2)], rank) if tp == 2 else None
    )
    while (task := pipe.recv()) is not None:
        function, args = task
        try:
            pipe.send(function(rank, *args))
        except Exception as error:
            error.__cause__ = None
            traceback.print_exc() if os.environ.get("ASCEND_MOE_TEST_VERBOSE") else None
            pipe.send(error)
    dist.destroy_process_group()


def _end_with_the_parent() -> None:
    """A test process that ends by a signal or the watchdog leaves no ranks, whose copies of its pipes would keep
    pytest-xdist waiting for it."""
    set_signal_of_parents_death = 1
    ctypes.CDLL(None).prctl(set_signal_of_parents_death, signal.SIGKILL)


GROUPS: dict[str, Any] = {}
"""In a rank: its EP group and its TP group."""


def _own_group(layout: list[list[int]], rank: int) -> dist.ProcessGroup:
    groups = [(ranks, dist.new_group(ranks)) for ranks in layout]
    return next(group for ranks, group in groups if rank in ranks)


@contextlib.contextmanager
def world(
    size: int, *, tp: int = 1, environments: Sequence[dict[str, str]] = ({},)
) -> Iterator[World]:
    opened = World(size, tp=tp, environments=environments)
    try:
        yield opened
    finally:
        opened.close()


def with_groups(rank: int, call: dict[str, Any]) -> dict[str, Any]:
    """The call of a rank with the names of its groups."""
    call = call | {"group_ep": ascend_moe.hccl_comm_name(GROUPS["ep"], rank)}
    if GROUPS["tp"] is not None:
        call["group_tp"] = ascend_moe.hccl_comm_name(GROUPS["tp"], rank)
    return call


def dispatch(rank: int, calls: list[dict[str, Any]]) -> Any:
    return ascend_moe.npu_moe_distribute_dispatch_v2(**with_groups(rank, calls[rank]))


def combine(rank: int, calls: list[dict[str, Any]]) -> Any:
    return ascend_moe.npu_moe_distribute_combine_v2(**with_groups(rank, calls[rank]))


def under(rank: int, variables: dict[str, str], function: Callable[..., Any], *args: Any) -> Any:
    """``function(rank, *args)`` with these environment variables."""
    with mock.patch.dict(os.environ, variables):
        return function(rank, *args)
