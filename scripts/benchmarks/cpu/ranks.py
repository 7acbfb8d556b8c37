"""Forked ranks that run what the parent asks for, one request at a time, and report when they began and ended.

The parent asks all ranks through a pipe each and waits for all answers. A rank that raises or dies ends the benchmark
with its name; whatever happens, no rank outlives the parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from typing import Any

import torch
import torch.distributed as dist

from scripts.benchmarks.cpu.cases import Routing
from scripts.benchmarks.cpu.ours import Ours
from scripts.benchmarks.cpu.plain import Plain

VARIANTS = {"ours": Ours, "gloo": Plain}
ANSWER_S = 300
"""A rank that has not answered by then hangs."""
_PR_SET_PDEATHSIG = 1


class RankFailed(RuntimeError):
    """A rank raised, died or hangs; the message says which and why."""


class Ranks:
    """The processes of one world; use as a context manager."""

    def __init__(self, routings: Sequence[Routing]) -> None:
        self._routings, self._size = routings, routings[0].world
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []

    def __enter__(self) -> Ranks:
        self._folder = tempfile.TemporaryDirectory(prefix="ascend-moe-bench-")
        context = multiprocessing.get_context("fork")
        barrier = context.Barrier(self._size)
        try:
            with _interrupt_afterwards():
                for rank in range(self._size):
                    ours, theirs = context.Pipe()
                    process = context.Process(
                        target=_serve,
                        args=(
                            rank,
                            self._routings,
                            self._folder.name,
                            barrier,
                            theirs,
                            os.getpid(),
                        ),
                        daemon=True,
                    )
                    process.start()
                    theirs.close()
                    self._processes.append(process)
                    self._pipes.append(ours)
            self._ask(None)  # all are there
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            for pipe in self._pipes:
                pipe.send("leave")
            for process in self._processes:
                process.join(20)
        self._end()

    def check(self, variant: str, op: str, routing: int) -> None:
        """Raises RankFailed unless every rank gets what the oracle says; warms everything up as well."""
        self._ask(("check", variant, op, routing))

    def sample(self, variant: str, op: str, routing: int, inner: int) -> float:
        """Milliseconds per call: from the first rank's begin to the last rank's end of ``inner`` calls."""
        spans = self._ask(("sample", variant, op, routing, inner))
        begin, end = min(span[0] for span in spans), max(span[1] for span in spans)
        return (end - begin) / inner / 1e6

    def _ask(self, request: object) -> list[Any]:
        """The ranks' answers, by rank."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):  # a rank that is gone is noticed below
                pipe.send(request)
        answers: dict[int, Any] = {}
        waiting = {pipe: rank for rank, pipe in enumerate(self._pipes)}
        deadline = time.monotonic() + ANSWER_S
        while waiting:
            ready = wait(list(waiting), timeout=deadline - time.monotonic())
            if not ready:
                raise RankFailed(f"ranks {sorted(waiting.values())} do not answer")
            for pipe in ready:
                assert isinstance(pipe, Connection)
                rank = waiting.pop(pipe)
                try:
                    answers[rank] = pipe.recv()
                except (EOFError, OSError):
                    raise RankFailed(self._dead() or f"rank {rank} hung up") from None
                if isinstance(answers[rank], str):  # the dead come before those who miss them
                    raise RankFailed(self._dead() or f"rank {rank}: {answers[rank]}")
        return [answers[rank] for rank in sorted(answers)]

    def _dead(self) -> str:
        for rank, process in enumerate(self._processes):
            process.join(0.05)
            if process.exitcode:
                return f"rank {rank} died (exit code {process.exitcode})"
        return ""

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        self._folder.cleanup()


@contextlib.contextmanager
def _interrupt_afterwards() -> Iterator[None]:
    """Keeps a Ctrl-C until all ranks are forked: raised inside a fork, Python's fork hooks would swallow it."""
    pressed: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if pressed:
        raise KeyboardInterrupt


def _serve(
    rank: int,
    routings: Sequence[Routing],
    folder: str,
    barrier: Barrier,
    pipe: Connection,
    parent: int,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends all ranks
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=routings[0].world
        )
        groups = {"ours": dist.group.WORLD, "gloo": dist.new_group()}
        calls = {
            variant: [make(routing, rank, groups[variant]) for routing in routings]
            for variant, make in VARIANTS.items()
        }
        while (request := pipe.recv()) != "leave":
            if request is None:
                pipe.send(True)
                continue
            task, variant, op, number, *inner = request
            call = calls[variant][number]
            if task == "check":
                pipe.send(_check(call, op, routings[number], rank))
            else:
                pipe.send(_sample(call, op, *inner, barrier))
        dist.destroy_process_group()
    except BaseException as error:
        pipe.send(f"{type(error).__name__}: {error}")


def _check(call: Ours | Plain, op: str, routing: Routing, rank: int) -> bool | str:
    """True, or which result is wrong."""
    if op == "combine":
        call.hold()
    result: Any = getattr(call, method(op))()
    call.release()
    where = f"{type(call).__name__} differs from the oracle in {op}, case {routing.case.name}"
    if op in ("combine", "round trip"):
        wanted = routing.combined[rank]
        if result.equal(wanted) or (
            not call.exact and torch.allclose(result.float(), wanted.float(), rtol=2**-7, atol=1e-6)
        ):
            return True
        return where
    rows, scales = call.received(result)
    if op == "dispatch":
        return rows.equal(routing.rows[rank]) or where
    equal = rows.equal(routing.rows_int8[rank]) and scales.equal(routing.scales[rank])
    return equal or where


def _sample(call: Ours | Plain, op: str, inner: int, barrier: Barrier) -> tuple[int, int]:
    """(begin, end) of ``inner`` calls, in nanoseconds of the clock that all processes share.

    One more call comes first: it has the others' caches to clear, and how a barrier lets the ranks go is not timed.
    """
    if op == "combine":
        call.hold()
    run = getattr(call, method(op))
    barrier.wait(ANSWER_S)
    run()
    begin = time.monotonic_ns()
    for _ in range(inner):
        run()
    end = time.monotonic_ns()
    call.release()
    return begin, end


def method(op: str) -> str:
    """The method that runs an op of the table."""
    return op.replace(" ", "_")
