"""Faults of the program around the calls: what must not become a wrong row, a dead process or a hang.

usage: faults.py CASE...

Each case has processes of its own; each rank prints "CASE rank R: OUTCOME | OUTCOME..".
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import ranks
import torch

import ascend_moe

SIZE, VICTIM = 2, 1


class Stop(BaseException):
    """What a signal handler raises."""


@functools.cache
def call(rank: int) -> dict[str, Any]:
    """Made once: a copy to the device raises what an earlier call left, and without its text."""
    x = torch.arange(4 * 1024).reshape(4, 1024).remainder(61).add(rank).bfloat16()
    ids = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0]]).int()
    return {
        "x": x.npu(),
        "expert_ids": ids.npu(),
        "group_ep": ranks.GROUPS["ep"],
        "ep_world_size": SIZE,
        "ep_rank_id": rank,
        "moe_expert_num": 4,
    }


def dispatch(rank: int, **changes: Any) -> Any:
    return ascend_moe.npu_moe_distribute_dispatch_v2(**call(rank) | changes)


def combine(rank: int, out: Any) -> str:
    x, ids, *attributes = call(rank).values()
    scales = torch.full((4, 2), 0.5, device="npu")
    back = ascend_moe.npu_moe_distribute_combine_v2(
        out[0], ids, out[2], out[4], scales, *attributes
    )
    torch.npu.synchronize()
    return "right" if back.cpu().equal(x.cpu()) else "wrong"


def pair(rank: int, **changes: Any) -> str:
    return combine(rank, dispatch(rank, **changes))


def outcome(function: Callable[..., str], *arguments: Any, **changes: Any) -> str:
    """What the function says, or the first line of what stopped it."""
    try:
        return function(*arguments, **changes)
    except Stop:
        return "stopped"
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"


def wrong_types(rank: int) -> list[str]:
    """On all ranks alike: between NPUs a refusal is told by nobody but the time limit."""
    sparse = torch.ones(4, 1024).bfloat16().to_sparse()
    complex_ = torch.ones(4, 1024, dtype=torch.complex64).npu()
    changes: list[dict[str, Any]] = [
        {name: value}
        for name in ("x", "expert_ids")
        for value in (None, 3, [1.0], "text", sparse, complex_)
    ]
    changes += [{"scales": 3}, {"moe_expert_num": "4"}, {"moe_expert_num": 4.0}, {"group_ep": None}]
    return [outcome(pair, rank, **change) for change in [{}, *changes, {}]]


def memory(rank: int) -> list[str]:
    """More than the device has; nothing of the kind is taken from the host."""
    found = [outcome(pair, rank)]
    found += [outcome(_tensor_of, 1 << bits) for bits in (38, 50)]
    return [*found, outcome(pair, rank)]


def _tensor_of(size: int) -> str:
    torch.empty(size, dtype=torch.uint8, device="npu")
    return "given"


def forked(rank: int) -> list[str]:
    """A child with the parent's open device makes a call, and ends."""
    found = [outcome(pair, rank)]
    if rank == VICTIM:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            os.write(writer, outcome(pair, rank).encode())
            os._exit(0)
        os.close(writer)
        found.append(os.read(reader, 1000).decode())
        found.append(f"child {os.waitpid(child, 0)[1]}")
    return [*found, outcome(pair, rank), outcome(pair, rank)]


def _on_signal(*_: object) -> None:
    raise Stop


def _waiting(rank: int) -> str:
    """A signal comes while the victim's kernel waits for a peer that is late."""
    if rank != VICTIM:
        time.sleep(0.6)
        return pair(rank)
    signal.signal(signal.SIGALRM, _on_signal)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    out = dispatch(rank)
    try:
        torch.npu.synchronize()
    except Stop:
        return f"stopped, {combine(rank, out)}"
    return "was not stopped"


def _half(rank: int) -> str:
    dispatch(rank)
    torch.npu.synchronize()
    raise Stop


def interrupted(rank: int) -> list[str]:
    """In a call, which ends all the same; then between two, so that the next calls differ."""
    found = [outcome(pair, rank), outcome(_waiting, rank), outcome(pair, rank)]
    found.append(outcome(_half if rank == VICTIM else pair, rank))
    return found + [outcome(pair, rank) for _ in range(2)]


def check(rank: int, case: str) -> None:
    found = " | ".join(globals()[case](rank))
    print(f"{case} rank {rank}: {found}\n", end="", flush=True)
    os._exit(0)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        ranks.run(SIZE, check, name, timeout=60)
