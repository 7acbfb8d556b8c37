"""Calls of the ranks that are left of a world with two experts on each MoE rank, and the way home."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import small_calls
import torch

from ascend_moe.contract.elastic import Elastic
from ascend_moe.contract.shapes import World


def calls_of(
    ranks: int,
    left: Sequence[int],
    *,
    seed: int = 1,
    attributes: dict[str, Any] | None = None,
    **more: Any,
) -> list[dict[str, Any]]:
    """A dispatch on each rank that is left, in ascending order."""
    attributes = {"moe_expert_num": 2 * ranks} | (attributes or {})
    whole = World.of_call(
        {"shared_expert_num": 1, "shared_expert_rank_num": 0, "ep_world_size": ranks} | attributes
    )
    elastic = Elastic.of_survivors(whole, {*range(ranks)}.difference(left))
    generator, experts = torch.Generator().manual_seed(seed), elastic.moe_expert_num
    info = torch.tensor(elastic.words(), dtype=torch.int32) if len(left) < ranks else None
    return [
        {
            "x": torch.randn(4, 1024, generator=generator).bfloat16(),
            "expert_ids": torch.rand(4, experts, generator=generator).argsort(dim=1)[:, :2].int(),
            "ep_world_size": ranks,
            "ep_rank_id": rank,
            "elastic_info": info,
            **attributes,
            **more,
        }
        for rank in left
    ]


def home_of(calls: list[dict[str, Any]], outputs: list[Any]) -> list[dict[str, Any]]:
    back = small_calls.homeward(calls, outputs)
    kept = ("elastic_info", "shared_expert_num", "shared_expert_rank_num")
    return [
        one | {k: call[k] for k in kept if k in call} for one, call in zip(back, calls, strict=True)
    ]
