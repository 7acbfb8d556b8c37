"""``elastic_info``: an EP group goes on without some of its ranks, the others in new numbers.

int32 (4 + 2 * ep_world_size):

    word 0              1: the group was scaled down; 0: all the rest is ignored
    words 1, 2, 3       ranks, ranks of shared experts and MoE experts that are left
    words 4 ..          by old rank: its new number, or -1: it is gone
    words 4 + ep ..     by new rank: its old number; -1 behind the last one

The attributes of the call stay those of the whole group. Routing, ``expert_ids``, counts and the handle are in new
numbers; ranks are reached by their old ones. So a call with elastic_info is the ordinary call of the ranks that are
left (`Elastic.reduced`), but for its outputs, whose sizes depend on the attributes alone: a rank may change between
shared and MoE experts, hence A is the larger of both (`shapes.dispatch_specs`).

Sources: ops-transformer ``mc2/moe_distribute_dispatch_v2/op_kernel/moe_distribute_elastic.h`` and
``moe_distribute_dispatch_v2.h`` (axisMaxBS: global_bs by the old number of ranks; rankNumPerSharedExpert: by the new
ones), op-plugin ``2daa071d``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ascend_moe.contract.shapes import World

HEAD_WORDS = 4


def words_of_group(ep_world_size: int) -> int:
    """The length of elastic_info."""
    return HEAD_WORDS + 2 * ep_world_size


@dataclass(frozen=True)
class Elastic:
    """Who is left of an EP group."""

    whole: int
    """Ranks of the group before."""
    shared_expert_rank_num: int
    moe_expert_num: int
    old_ranks: tuple[int, ...]
    """By new rank."""

    @classmethod
    def of_survivors(cls, world: World, gone: Collection[int]) -> Elastic:
        """The ranks that are left keep their order, and the experts they have.

        Raises ValueError, naming what is missing, when nothing useful is left.
        """
        left = tuple(rank for rank in range(world.ep_world_size) if rank not in gone)
        shared = sum(map(world.is_shared_rank, left))
        if len(left) == shared:
            raise ValueError("no rank with MoE experts is left")
        if world.shared_expert_rank_num and (not shared or shared % world.shared_expert_num):
            raise ValueError(
                f"{shared} ranks of shared experts are left, needed: a multiple of shared_expert_num = "
                f"{world.shared_expert_num}"
            )
        experts = (len(left) - shared) * world.local_expert_num
        return cls(world.ep_world_size, shared, experts, left)

    @classmethod
    def read(cls, words: Sequence[int], ep_world_size: int) -> Elastic | None:
        """What checked words say; None when the group was not scaled down."""
        if not words[0]:
            return None
        _, ranks, shared, experts = words[:HEAD_WORDS]
        by_new = HEAD_WORDS + ep_world_size
        return cls(ep_world_size, shared, experts, tuple(words[by_new : by_new + ranks]))

    @property
    def ranks(self) -> int:
        return len(self.old_ranks)

    @property
    def gone(self) -> list[int]:
        """Old ranks that are not left, ascending."""
        return sorted({*range(self.whole)}.difference(self.old_ranks))

    def words(self) -> list[int]:
        """The contents of elastic_info."""
        numbers = {old: new for new, old in enumerate(self.old_ranks)}
        by_old = [numbers.get(old, -1) for old in range(self.whole)]
        by_new = [*self.old_ranks, *[-1] * (self.whole - self.ranks)]
        return [1, self.ranks, self.shared_expert_rank_num, self.moe_expert_num, *by_old, *by_new]

    def reduced(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """The ordinary call that the same rank makes in the group of those that are left.

        call: every parameter. ``performance_info``, which counts old ranks, is left out.
        """
        changed = {
            "ep_world_size": self.ranks,
            "ep_rank_id": self.old_ranks.index(call["ep_rank_id"]),
            "shared_expert_rank_num": self.shared_expert_rank_num,
            "moe_expert_num": self.moe_expert_num,
            "global_bs": call["global_bs"] // self.whole * self.ranks,
            "elastic_info": None,
            "performance_info": None,
        }
        scales = call.get("scales")
        if scales is not None and call["quant_mode"]:
            # A row per expert, shared ones first; those behind the last one that is left are of nobody.
            changed["scales"] = scales[: len(scales) - call["moe_expert_num"] + self.moe_expert_num]
        return {**call, **changed}
