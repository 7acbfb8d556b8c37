"""Small legal calls of a world with two experts per rank, the way home, and whether a world makes both rightly.

On the way home each row is its expert's output.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
import worlds

from ascend_moe.cpu.distributed.peers import state_of
from ascend_moe.reference import combine_world, dispatch_world


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


def same(outputs: Iterable[torch.Tensor], oracle: Iterable[torch.Tensor]) -> bool:
    """Whether all tensors are equal, and as many."""
    return all(one.equal(other) for one, other in zip(outputs, oracle, strict=True))


def works(
    world: worlds.World,
    calls: list[dict[str, Any]] | None = None,
    *,
    times: int = 1,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Every output of a round trip on every rank is the oracle's.

    calls: None makes some; variables: of the ranks meanwhile
    """
    calls, variables = make_calls(world.size) if calls is None else calls, dict(variables)
    wanted = dispatch_world(calls)
    back = homeward(calls, wanted)
    for _ in range(times):
        for rank, outputs in enumerate(world.run(worlds.under, variables, worlds.dispatch, calls)):
            assert same(outputs, wanted[rank]), f"dispatch on rank {rank}"
        combined = world.run(worlds.under, variables, worlds.combine, back)
        assert same(combined, combine_world(back))


def kinds_remembered(rank: int) -> int:
    """In a rank: kinds of calls of which its group knows that they are legal."""
    return len(state_of(worlds.GROUPS["ep"]).calls)
