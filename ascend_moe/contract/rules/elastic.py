"""X-xx, elastic_info: who takes it, and what its words may say. `contract.elastic` says what they mean."""

from __future__ import annotations

from typing import Any

from ascend_moe.contract.buffsize import CPU, OWN
from ascend_moe.contract.call import Call, dtype_name
from ascend_moe.contract.elastic import HEAD_WORDS, words_of_group
from ascend_moe.contract.limits import MESHES
from ascend_moe.contract.rules.rule import (
    CURRENT_DOC,
    KERNEL,
    TILING,
    VALUES,
    Breach,
    Finding,
    Rule,
    shape_breach,
)
from ascend_moe.contract.rules.values import readable

SERVED_BY = (CPU, OWN)
"""The implementations that serve it."""
FIRST = "op-plugin 2daa071d, the documents of 2025-08-30, which describe it"


def _allowed(call: Call) -> Finding:
    info = call.elastic_info
    if info is None:
        return None
    if call.implementation not in SERVED_BY:
        return Breach("a tensor", "None", message="is {value}; it is reserved, pass {limit}")
    # Ours take it whatever CANN is below them; the contracts say what CANN's own take.
    own = call.implementation == OWN and call.product == "A3" and call.path in MESHES
    if not own and not call.path_limits.elastic_info:
        where = f"{call.product} {call.path} under {call.contract}"
        return Breach("a tensor", "None", message=f"is {{value}}; {where} takes {{limit}} only")
    if call.tp_world_size == 2:
        return Breach("a tensor", "None", message="is {value}; with tp_world_size = 2 pass {limit}")
    return shape_breach(info, "elastic_info", ("int32",), (words_of_group(call.ep_world_size),))


def words_of(call: Call) -> list[int] | None:
    """The words of a call that breaks no other rule; None where they cannot be read or are to be ignored."""
    info: Any = call.elastic_info
    if info is None or not readable(info) or dtype_name(info) != "int32" or _allowed(call):
        return None
    words: list[int] = info.tolist()
    return words if words[0] else None


def _head(call: Call) -> Finding:
    words, world = words_of(call), call.world
    if words is None or world is None:
        return None
    scaled, ranks, shared, experts = words[:HEAD_WORDS]
    if scaled != 1:
        return _word(0, scaled, "0 or 1")
    if not 1 <= ranks <= call.ep_world_size:
        return _word(1, ranks, f"ranks that are left, 1..{call.ep_world_size}")
    if not 0 <= shared < ranks:
        return _word(2, shared, f"shared-expert ranks that are left, 0..{ranks - 1}")
    if bool(shared) != bool(world.shared_expert_rank_num) or (
        shared and shared % world.shared_expert_num
    ):
        wanted = f"a positive multiple of shared_expert_num = {world.shared_expert_num}"
        return _word(2, shared, wanted if world.shared_expert_rank_num else "0, as before")
    needed = (ranks - shared) * world.local_expert_num
    if experts != needed:
        each = f"{world.local_expert_num} on each of {ranks - shared} ranks"
        return _word(3, experts, f"{needed} MoE experts, {each} as before")
    return None


def _tables(call: Call) -> Finding:
    words = words_of(call)
    if words is None or _head(call):
        return None
    ep, ranks = call.ep_world_size, words[1]
    new_of_old, old_of_new = words[HEAD_WORDS:][:ep], words[HEAD_WORDS + ep :]
    for new, old in enumerate(old_of_new):
        at = HEAD_WORDS + ep + new
        if new >= ranks:
            if old != -1:
                return _word(at, old, f"-1 behind the {ranks} ranks that are left")
        elif not 0 <= old < ep:
            return _word(at, old, f"the old rank of new rank {new}, 0..{ep - 1}")
        elif new_of_old[old] != new:
            wanted = f"{new}: word {at} gives new rank {new} to old rank {old}"
            return _word(HEAD_WORDS + old, new_of_old[old], wanted)
    for old, new in enumerate(new_of_old):
        if new != -1 and not (0 <= new < ranks and old_of_new[new] == old):
            return _word(HEAD_WORDS + old, new, f"the new rank of old rank {old}, or -1")
    return None


def _own(call: Call) -> Finding:
    words = words_of(call)
    if words is None or not 0 <= call.ep_rank_id < call.ep_world_size:
        return None
    if _head(call) or _tables(call) or words[HEAD_WORDS + call.ep_rank_id] != -1:
        return None
    return _word(HEAD_WORDS + call.ep_rank_id, -1, f"a new rank for the caller, {call.ep_rank_id}")


def _word(index: int, value: int, limit: str) -> Breach:
    return Breach(value, limit, message=f"word {index} is {{value}}, needed: {{limit}}")


_SERVED = {"implementation": OWN}

ELASTIC_RULES: tuple[Rule, ...] = (
    Rule(
        id="X-30",
        param="elastic_info",
        statement=(
            "elastic_info is None with CANN's kernels; with ours and on CPU, for A3 full mesh without TP, also "
            "int32 (4 + 2 * ep_world_size,)."
        ),
        source=f"{CURRENT_DOC}; {FIRST}; {TILING}",
        check=_allowed,
        safety=True,
        breaks={"elastic_info": (36, "int32")},
        holds={"elastic_info": None},
        note=(
            "The documents call it reserved since 2026-03 (ops-transformer e4109e72d); CANN's A3 "
            "kernels still read it."
        ),
    ),
    Rule(
        id="X-47",
        param="elastic_info",
        statement=(
            "Word 0 of elastic_info is 0 (the rest is ignored) or 1; words 1 to 3 count the ranks, "
            "shared-expert ranks and MoE experts that are left: at least one rank with MoE experts, as "
            "many experts on each as before, and a multiple of shared_expert_num of shared-expert ranks."
        ),
        source=f"{FIRST}; {KERNEL}/moe_distribute_elastic.h",
        check=_head,
        checked=VALUES,
        products=("A3",),
        paths=MESHES,
        safety=True,
        breaks={**_SERVED, "elastic_info": (36, "int32", "one expert too many")},
        holds={**_SERVED, "elastic_info": (36, "int32", "all but the last rank")},
        note="That a shared expert keeps a copy is ours: tokens would have nowhere to go.",
    ),
    Rule(
        id="X-48",
        param="elastic_info",
        statement=(
            "The two tables of elastic_info, new rank by old and old rank by new, say the same; -1 "
            "stands for a rank that is gone, and behind the ranks that are left."
        ),
        source=f"{FIRST}; {KERNEL}/moe_distribute_elastic.h",
        check=_tables,
        checked=VALUES,
        products=("A3",),
        paths=MESHES,
        safety=True,
        breaks={**_SERVED, "elastic_info": (36, "int32", "tables that differ")},
        holds={**_SERVED, "elastic_info": (36, "int32", "all but the last rank")},
    ),
    Rule(
        id="X-49",
        param="elastic_info",
        statement="elastic_info gives the calling rank a new number: who is gone does not call.",
        source=f"{FIRST}; {KERNEL}/moe_distribute_elastic.h",
        check=_own,
        checked=VALUES,
        products=("A3",),
        paths=MESHES,
        safety=True,
        breaks={
            **_SERVED,
            "ep_rank_id": 15,
            "elastic_info": (36, "int32", "all but the last rank"),
        },
        holds={**_SERVED, "elastic_info": (36, "int32", "all but the last rank")},
    ),
)
