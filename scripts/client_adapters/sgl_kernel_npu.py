"""sgl-kernel-npu's deep_ep with its "ops" strategy: padded, masked, without its compiled extension."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

import torch

from client_adapters.judge import Batch, Case, expert_outputs, group_name
from client_adapters.stubs import Stubs, install

NAME, WHAT = "sgl-kernel-npu", "deep_ep, OpsLowLatencyCommStrategy"
FILE = "python/deep_ep/deep_ep/strategies/low_latency_strategy.py"
CAPACITY = 16  # tokens per rank, as num_max_dispatch_tokens_per_rank
CASES = (
    Case("bf16", option=""),
    Case("bf16, fullmesh_v1", products=("A3",), option="fullmesh_v1"),
    Case("bf16, fullmesh_v2", products=("A3",), option="fullmesh_v2"),
    Case("bf16, uneven batches", tokens=(5, 16, 1, 9), option=""),
    Case("int8", int8=True, option=""),
)


@functools.cache
def strategy(checkout: str) -> Any:
    root = (Path(checkout) / FILE).parents[1]
    packages = {"deep_ep": root, "deep_ep.strategies": root / "strategies"}
    real = ("deep_ep.strategies.low_latency_strategy", "deep_ep.ep_strategy", "deep_ep.utils")
    install(Stubs(("deep_ep", "deep_ep_cpp"), packages, real))
    return importlib.import_module(real[0]).OpsLowLatencyCommStrategy


def run(checkout: str, case: Case, batch: Batch) -> torch.Tensor:
    """Dispatch, experts on the host, combine."""
    group, _ = group_name()
    theirs = strategy(checkout)(None, group, comm_alg=case.option)
    received, counts, handle, _, _ = theirs.low_latency_dispatch(
        batch.x,
        batch.ids,
        CAPACITY,
        batch.experts,
        use_fp8=case.int8,  # which is int8 there
        topk_weights=batch.weights,
    )
    rows, scales = received if case.int8 else (received, None)
    outputs = expert_outputs(batch, rows, counts, scales)
    combined, _, _ = theirs.low_latency_combine(outputs, batch.ids, batch.weights, handle)
    return combined
