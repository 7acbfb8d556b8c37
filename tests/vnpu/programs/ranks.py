"""Ranks of a program on the virtual NPU: forked processes with an HCCL group each.

The parent has torch_npu imported but no device open, so a fork costs little.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing import connection
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch_npu

GROUPS: dict[str, str] = {}
"""In a rank: the names of its EP group and its TP group."""


def has_waits() -> bool:
    """Whether this torch_npu has performance_info: from 2.6.0.post5 and 2.9.0 on."""
    operator = torch.ops.npu.npu_moe_distribute_dispatch_v2.default
    return any(argument.name == "performance_info" for argument in operator._schema.arguments)


def run(
    ranks: int,
    function: Callable[..., None],
    *args: Any,
    tp: int = 1,
    timeout: float = 200,
    apart: Mapping[int, Mapping[str, str]] | None = None,
) -> None:
    """Call ``function(rank, *args)`` on every rank; exit with 1 when any of them fails.

    The ranks in ``apart`` are started afresh, with these variables from the beginning; the others are forked.
    """
    with tempfile.TemporaryDirectory(prefix="ascend-moe-npu-") as folder:
        store = str(Path(folder) / "store")
        processes = []
        for rank in range(ranks):
            variables = (apart or {}).get(rank)
            context = mp.get_context("fork" if variables is None else "spawn")
            process = context.Process(target=_serve, args=(rank, ranks, tp, store, function, args))
            with mock.patch.dict(os.environ, variables or {}):
                process.start()
            processes.append(process)
        _wait(processes, time.monotonic() + timeout)
        for process in processes:
            process.kill()
            process.join()
        codes = [process.exitcode for process in processes]
        if any(codes):
            sys.exit(f"exit codes of the ranks: {codes}")


def _wait(processes: list[Any], deadline: float) -> None:
    """Until all have ended; a failed one leaves the others 10 s, since torch's store would wait much longer.

    Who was killed has not failed: that is what such a program is about.
    """
    waiting = list(processes)
    while waiting and time.monotonic() < deadline:
        connection.wait([process.sentinel for process in waiting], timeout=1)
        if any(process.exitcode not in (None, 0, -signal.SIGKILL) for process in processes):
            deadline = min(deadline, time.monotonic() + 10)
        waiting = [process for process in waiting if process.exitcode is None]


def _serve(
    rank: int, ranks: int, tp: int, store: str, function: Callable[..., None], args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    torch_npu.npu.set_device(rank)
    dist.init_process_group("hccl", init_method=f"file://{store}", rank=rank, world_size=ranks)
    # TP pairs are neighbours, EP groups take every tp-th rank (the layout of the documents' examples).
    GROUPS["ep"] = _own_name([list(range(plane, ranks, tp)) for plane in range(tp)], rank)
    if tp == 2:
        GROUPS["tp"] = _own_name([[first, first + 1] for first in range(0, ranks, 2)], rank)
    try:
        function(rank, *args)
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _own_name(layout: list[list[int]], rank: int) -> str:
    groups = [(ranks, dist.new_group(ranks)) for ranks in layout]
    group = next(group for ranks, group in groups if rank in ranks)
    return group._get_backend(torch.device("npu")).get_hccl_comm_name(rank)


def on_npu(call: dict[str, Any]) -> dict[str, Any]:
    """The call with its tensors on the device, strides kept, and the names of this rank's groups."""
    call = {name: _to_npu(value) for name, value in call.items()} | {"group_ep": GROUPS["ep"]}
    return call | {"group_tp": GROUPS["tp"]} if call.get("tp_world_size") == 2 else call


def _to_npu(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if value.is_contiguous():
        return value.npu()
    holder = torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="npu")
    return holder.copy_(value)
