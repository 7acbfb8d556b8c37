"""The processes of the demo: forked ranks that report to the parent and never outlive it."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

import ascend_moe
from ascend_moe.cli.demo_layer import Expected, Layer, RankReport
from ascend_moe.contract.handle import rows_received

RENDEZVOUS = timedelta(seconds=120)
_PR_SET_PDEATHSIG = 1


class RankFailed(RuntimeError):
    """A rank raised or died; the message says which and why."""


def run_ranks(
    layer: Layer, expected: Expected, progress: Callable[[str], None]
) -> list[RankReport]:
    """Runs the layer on ``layer.ranks`` forked processes. All of them are gone when this returns or raises."""
    context = multiprocessing.get_context("fork")
    processes: list[BaseProcess] = []
    pipes: list[Connection] = []
    try:
        with _interrupt_afterwards():
            for rank in range(layer.ranks):
                ours, theirs = context.Pipe()
                process: BaseProcess = context.Process(
                    target=_rank_main,
                    args=(rank, layer, expected, theirs, os.getpid()),
                    daemon=True,
                )
                process.start()
                theirs.close()
                processes.append(process)
                pipes.append(ours)
        # The store has a thread, and a fork beside it may inherit a lock that nobody will release: it comes last.
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        for pipe in pipes:
            with contextlib.suppress(OSError):  # a rank that is gone is noticed below
                pipe.send(store.port)
        return _collect(processes, pipes, progress)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


@contextlib.contextmanager
def _interrupt_afterwards() -> Iterator[None]:
    """Keeps a Ctrl-C until the block is done: raised inside a fork, Python's fork hooks would swallow it."""
    pressed: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if pressed:
        raise KeyboardInterrupt


def _collect(
    processes: list[BaseProcess], pipes: list[Connection], progress: Callable[[str], None]
) -> list[RankReport]:
    """Waits for all reports; the first failure ends it."""
    waiting = dict(zip(pipes, range(len(pipes)), strict=True))
    reports: dict[int, RankReport] = {}
    failures: dict[int, str] = {}
    shown = 0
    while waiting:
        for pipe in wait(list(waiting), timeout=1.0 if failures else None):
            assert isinstance(pipe, Connection)
            rank = waiting.pop(pipe)
            try:
                answer = pipe.recv()
            except EOFError:
                processes[rank].join(1.0)
                answer = f"died (exit code {processes[rank].exitcode})"
            if isinstance(answer, str):
                failures[rank] = answer
            else:
                reports[rank] = answer
        if failures:
            rank, text = next(iter(failures.items()))
            raise RankFailed(f"rank {rank} {text}")
        if len(reports) * 4 // len(pipes) > shown:
            shown = len(reports) * 4 // len(pipes)
            progress(f"{len(reports)} of {len(pipes)} ranks are done")
    return [reports[rank] for rank in sorted(reports)]


def _rank_main(rank: int, layer: Layer, expected: Expected, pipe: Connection, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends all ranks
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    torch.set_num_threads(1)
    os.environ["ASCEND_MOE_PRODUCT"] = layer.product
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        store = TCPStore("127.0.0.1", pipe.recv(), is_master=False)
        dist.init_process_group(
            "gloo", store=store, rank=rank, world_size=layer.ranks, timeout=RENDEZVOUS
        )
        pipe.send(_run_layer(rank, layer, expected))
        dist.destroy_process_group()
    except Exception as error:
        pipe.send(f"failed: {error}")


def _run_layer(rank: int, layer: Layer, expected: Expected) -> RankReport:
    """The layer twice, the second time on the clock."""
    group_ep = ascend_moe.hccl_comm_name(dist.group.WORLD, rank)
    call = layer.dispatch_call(rank) | {"group_ep": group_ep}
    for _ in range(2):
        started = time.perf_counter()
        dispatched = ascend_moe.npu_moe_distribute_dispatch_v2(**call)
        dispatch_s = time.perf_counter() - started
        homeward = layer.combine_call(rank, call, dispatched) | {"group_ep": group_ep}
        started = time.perf_counter()
        combined = ascend_moe.npu_moe_distribute_combine_v2(**homeward)
        combine_s = time.perf_counter() - started
    ours = [*dispatched, combined]
    oracle = [*expected.dispatched[rank], expected.combined[rank]]
    rows = rows_received(layer.world, homeward)
    row_bytes = dispatched[0].element_size() * layer.hidden + (4 if layer.quant_mode else 0)
    return RankReport(
        rank=rank,
        holds=layer.holds(rank),
        rows=rows,
        bytes_moved=rows * (row_bytes + homeward["expand_x"].element_size() * layer.hidden),
        max_error=max(_largest_difference(a, b) for a, b in zip(ours, oracle, strict=True)),
        equal=all(a.equal(b) for a, b in zip(ours, oracle, strict=True)),
        dispatch_ms=dispatch_s * 1e3,
        combine_ms=combine_s * 1e3,
    )


def _largest_difference(ours: Any, oracle: Any) -> float:
    if ours.shape != oracle.shape:
        return float("inf")
    return float((ours.double() - oracle.double()).abs().max()) if ours.numel() else 0.0
