"""Small legal calls of a world with two experts per rank, and the way home with each row as its expert's output."""

from __future__ import annotations

from typing import Any

import torch


def make_calls(ranks: int, *, bs: int = 4, seed: int = 3, **changes: Any) -> list[dict[str, Any]]:
    """Dispatch on each rank."""
    generator, experts = torch.Generator().manual_seed(seed), 2 * ranks
    return [
        {
            "x": torch.randn(bs, 1024, generator=generator).bfloat16(),
            "expert_ids": torch.rand(bs, experts, generator=generator).argsort(dim=1)[:, :2].int(),
            "ep_world_size": ranks,
            "ep_rank_id": rank,
            "moe_expert_num": experts,
        }
        | changes
        for rank in range(ranks)
    ]


def homeward(calls: list[dict[str, Any]], dispatched: list[Any]) -> list[dict[str, Any]]:
    """Combine on each rank."""
    kept = (
        "expert_ids",
        "ep_world_size",
        "ep_rank_id",
        "moe_expert_num",
        "x_active_mask",
        "global_bs",
    )
    return [
        {name: call[name] for name in kept if name in call}
        | {
            "expand_x": output[0],
            "assist_info_for_combine": output[2],
            "ep_send_counts": output[4],
            "expert_scales": torch.full(call["expert_ids"].shape, 0.5),
        }
        for call, output in zip(calls, dispatched, strict=True)
    ]
