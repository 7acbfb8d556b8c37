"""How long the operators take, and how that compares with the link.

The figures of merit are bytes that must cross the link, from the routes themselves, over the time of the slowest rank.
The roofline is the link alone: 196 GB/s per die and direction (7 lanes of 224 Gb/s; arXiv 2506.12708, section on the
CloudMatrix384 UB plane), which no kernel can beat.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

LINK_GB_S = 196.0
WARM_UP = 5


def measure(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Microseconds per call, the median of ``rounds``, of operators that are called in turn.

    Events are recorded around every call, and the host waits once, behind the last.
    """
    import torch_npu

    for _ in range(min(WARM_UP, rounds)):
        for call in calls.values():
            call()
    torch_npu.npu.synchronize()
    events = []
    for _ in range(rounds):
        for name, call in calls.items():
            pair = [torch_npu.npu.Event(enable_timing=True) for _ in range(2)]
            pair[0].record()
            call()
            pair[1].record()
            events.append((name, pair))
    torch_npu.npu.synchronize()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for name, (start, end) in events:
        times[name].append(1000 * start.elapsed_time(end))
    return {name: statistics.median(found) for name, found in times.items()}


def link_bytes(call: Mapping[str, Any], rank: int) -> dict[str, int]:
    """Bytes that a rank's tokens put on the link, one row per (token, expert on another rank)."""
    owners = call["expert_ids"] // (call["moe_expert_num"] // call["ep_world_size"])
    rows = int((owners != rank).sum())
    hidden = call["x"].shape[1]
    return {
        "dispatch": rows * (hidden + 4 if call["quant_mode"] else 2 * hidden),
        "combine": rows * 2 * hidden,
    }
