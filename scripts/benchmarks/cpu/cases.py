"""Sizes of the benchmark, its random routings, and the results that both implementations are checked against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ascend_moe.reference import combine_world, dispatch_world

OPS = ("dispatch", "dispatch int8", "combine", "round trip")
ROUTINGS = 3
"""Taken in turn, so that no cache or branch predictor learns one by heart."""


@dataclass(frozen=True)
class Case:
    """Sizes per rank; all experts are routed, ``experts`` is their number in all."""

    name: str
    bs: int
    hidden: int
    topk: int
    experts: int
    largest_world: int = 16


CASES = {
    case.name: case
    for case in (
        Case("seed", 8, 7168, 8, 16),
        Case("c2", 64, 2048, 8, 64),
        Case("c3", 128, 4096, 4, 32),
        Case("c4", 256, 7168, 8, 64, largest_world=4),
    )
}


@dataclass(frozen=True)
class Routing:
    """The tokens of all ranks and their choices, and what the oracle makes of them; lists have an entry per rank."""

    case: Case
    world: int
    x: list[Tensor]
    ids: list[Tensor]
    weights: list[Tensor]
    rows: list[Tensor]
    """bf16 (n, H) what dispatch delivers."""
    rows_int8: list[Tensor]
    scales: list[Tensor]
    """fp32 (n,) of the int8 rows."""
    combined: list[Tensor]
    """bf16 (BS, H): experts are the identity."""

    @classmethod
    def draw(cls, case: Case, world: int, seed: int) -> Routing:
        generator = torch.Generator().manual_seed(seed)
        x, ids, weights = [], [], []
        for _ in range(world):
            x.append(torch.randn(case.bs, case.hidden, generator=generator).bfloat16())
            order = torch.rand(case.bs, case.experts, generator=generator).argsort(dim=1)
            ids.append(order[:, : case.topk].int().contiguous())
            weights.append(torch.rand(case.bs, case.topk, generator=generator).softmax(dim=1))
        calls = [
            {"x": x[rank], "expert_ids": ids[rank]} | attributes(case, world, rank)
            for rank in range(world)
        ]
        plain = dispatch_world(calls, check=False)
        quantised = dispatch_world([call | {"quant_mode": 2} for call in calls], check=False)
        counts = [int(output.ep_recv_counts[-1]) for output in plain]
        combined = combine_world(
            [
                {
                    "expand_x": output.expand_x,
                    "expert_ids": ids[rank],
                    "assist_info_for_combine": output.assist_info_for_combine,
                    "ep_send_counts": output.ep_recv_counts,
                    "expert_scales": weights[rank],
                }
                | attributes(case, world, rank)
                for rank, output in enumerate(plain)
            ],
            check=False,
        )
        return cls(
            case,
            world,
            x,
            ids,
            weights,
            rows=[one.expand_x[:n] for one, n in zip(plain, counts, strict=True)],
            rows_int8=[one.expand_x[:n] for one, n in zip(quantised, counts, strict=True)],
            scales=[one.dynamic_scales[:n] for one, n in zip(quantised, counts, strict=True)],
            combined=combined,
        )


def attributes(case: Case, world: int, rank: int) -> dict[str, Any]:
    """The attributes that dispatch and combine share."""
    return {"ep_world_size": world, "ep_rank_id": rank, "moe_expert_num": case.experts}
