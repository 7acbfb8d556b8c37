"""Random legal calls of those left of five ranks, two of them with a shared expert: one of each kind is gone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from elastic_calls import calls_of
from random_calls import Plan, combine_calls

RANKS, LEFT, DEAD, LOCAL = 5, [0, 2, 3], [1, 4], 2
WHOLE = {"moe_expert_num": 3 * LOCAL, "shared_expert_num": 1, "shared_expert_rank_num": 2}
INFO = calls_of(RANKS, LEFT, attributes=WHOLE)[0]["elastic_info"]


def lifted(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The calls of a world of three ranks as those of what is left of five."""
    found = []
    for rank, call in zip(LEFT, calls, strict=True):
        changed = {
            **WHOLE,
            "ep_world_size": RANKS,
            "ep_rank_id": rank,
            "global_bs": call["global_bs"] // len(LEFT) * RANKS,
            "elastic_info": INFO,
        }
        if call.get("scales") is not None:
            gone = torch.ones(1 + WHOLE["moe_expert_num"] - len(call["scales"]), call["x"].shape[1])
            changed["scales"] = torch.cat([call["scales"], gone])
        found.append(call | changed)
    return found


def fitting(plan: Plan) -> Plan:
    """The same for those that are left: one rank with the shared expert, two with two experts each."""
    experts = LOCAL * 2
    return replace(
        plan,
        product="A3",
        contract="cann-9.1",
        shared_experts=1,
        shared_ranks=1,
        local_experts=LOCAL,
        shared_expert_x="none",
        topk=min(plan.topk, experts),
    )


def home(plan: Plan, handles: list[Any], calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Their combine."""
    return [call | {"elastic_info": INFO} for call in combine_calls(plan, handles, calls)]
