"""What the checks in front of a device call cost, in microseconds: once per kind of call, and again.

A decode step makes the two calls about 100 times, so the second number is the one that counts. The
tensors are meta tensors: nothing but shapes and dtypes is read, as on an NPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping

from ascend_moe.bootstrap import import_torch

import_torch()

import torch  # noqa: E402

from ascend_moe import gate  # noqa: E402
from ascend_moe.contract.signature import with_defaults  # noqa: E402

BATCH, HIDDEN, TOPK, RANKS, EXPERTS = 8, 7168, 8, 16, 256


def calls() -> dict[str, dict[str, object]]:
    """A decode step of DeepSeek-V3 on 16 ranks."""

    def meta(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    rows = BATCH * RANKS * min(EXPERTS // RANKS, TOPK)
    common = {
        "expert_ids": meta(BATCH, TOPK),
        "group_ep": "ep",
        "ep_world_size": RANKS,
        "ep_rank_id": 3,
        "moe_expert_num": EXPERTS,
    }
    dispatch = {"x": meta(BATCH, HIDDEN, dtype=torch.bfloat16), "quant_mode": 2}
    combine = {
        "expand_x": meta(rows, HIDDEN, dtype=torch.bfloat16),
        "assist_info_for_combine": meta(rows * 128),
        "ep_send_counts": meta(EXPERTS),
        "expert_scales": meta(BATCH, TOPK, dtype=torch.float32),
        "expand_scales": meta(rows, dtype=torch.float32),
        "tp_send_counts": meta(1),
    }
    return {
        "dispatch": with_defaults("dispatch", common | dispatch),
        "combine": with_defaults("combine", common | combine),
    }


def first_time(op: str, call: Mapping[str, object], rounds: int) -> float:
    """Median of a call of a kind that was not met before."""
    times = []
    for _ in range(rounds):
        gate.forget()
        start = time.perf_counter_ns()
        gate.require_legal(op, call)
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1000


def repeated(op: str, call: Mapping[str, object], rounds: int, batch: int = 100) -> float:
    """Median of a call that was met before, over steps of `batch` calls."""
    gate.require_legal(op, call)
    times = []
    for _ in range(rounds):
        start = time.perf_counter_ns()
        for _ in range(batch):
            gate.require_legal(op, call)
        times.append((time.perf_counter_ns() - start) / batch)
    return statistics.median(times) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1000)
    rounds = parser.parse_args().rounds
    print(f"{'microseconds, median':24}{'first':>10}{'repeated':>10}")
    for op, call in calls().items():
        first, again = first_time(op, call, rounds), repeated(op, call, rounds)
        print(f"{op:24}{first:10.1f}{again:10.1f}")


if __name__ == "__main__":
    main()
