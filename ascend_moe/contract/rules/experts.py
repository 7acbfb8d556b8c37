"""X-xx, the MoE and special experts: how many, and how many on a rank."""

from __future__ import annotations

from ascend_moe.contract import limits as lim
from ascend_moe.contract.call import Call
from ascend_moe.contract.limits import FULLMESH, FULLMESH_V2, HIERARCHY, MESHES
from ascend_moe.contract.rules.rule import (
    ACLNN_DOC,
    CURRENT_DOC,
    DOCS,
    SEED_DOC,
    TILING,
    Breach,
    Finding,
    Rule,
)
from ascend_moe.contract.signature import CANN_8_2, CANN_9_1


def _moe_experts(call: Call) -> Finding:
    limits, experts = call.path_limits, call.moe_expert_num
    if not 1 <= experts <= limits.moe_experts_max:
        return Breach(experts, f"1..{limits.moe_experts_max}")
    warn = limits.moe_experts_warn
    if warn is not None and experts > warn:
        return Breach(
            experts,
            warn,
            message="is {value}: documented, but kernels of this contract stop at {limit}",
            level="warning",
        )
    return None


def _moe_experts_divide(call: Call) -> Finding:
    moe_ranks = call.ep_world_size - call.shared_ranks
    if moe_ranks > 0 and call.moe_expert_num > 0 and call.moe_expert_num % moe_ranks:
        return Breach(call.moe_expert_num, f"a multiple of {moe_ranks}")
    return None


def _local_experts_a3(call: Call) -> Finding:
    local = call.local_experts
    if local is None:
        return None
    limits = call.path_limits
    bound = limits.local_times_ep_max
    if bound is not None and local * call.ep_world_size > bound:
        return Breach(local * call.ep_world_size, bound)
    warn = limits.local_experts_warn
    if warn is not None and local > warn:
        return Breach(
            local,
            warn,
            message=(
                "gives {value} experts per rank; the aclnn documents allow {limit} in hierarchy"
            ),
            level="warning",
        )
    return None


def _local_experts_a2(call: Call) -> Finding:
    local, bound = call.local_experts, call.path_limits.local_experts_max
    if local is not None and bound is not None and local > bound:
        return Breach(local, bound)
    return None


def _tp_one_expert(call: Call) -> Finding:
    if call.tp_world_size == 2 and call.local_experts is not None and call.local_experts != 1:
        return Breach(call.local_experts, 1)
    return None


def _special_counts(call: Call) -> Finding:
    found = []
    for kind in ("zero", "copy", "const"):
        count = getattr(call, f"{kind}_expert_num")
        if count < 0:
            found.append(Breach(count, ">= 0", f"{kind}_expert_num"))
    if not found and call.experts_total >= lim.EXPERTS_TOTAL_BELOW:
        found.append(
            Breach(
                call.experts_total,
                f"below {lim.EXPERTS_TOTAL_BELOW}",
                message="all experts together are {value}, allowed: {limit}",
            )
        )
    return found or None


def _special_allowed(call: Call) -> Finding:
    counts = (call.zero_expert_num, call.copy_expert_num, call.const_expert_num)
    if counts == (0, 0, 0):
        return None
    allowed = call.path_limits.special_experts
    found = [
        Breach(count, 0, f"{kind}_expert_num")
        for kind, count in zip(("zero", "copy", "const"), counts, strict=True)
        if count != 0 and kind not in allowed
    ]
    return found or None


_A2 = lim.A2_FIRST[FULLMESH]

_MESH, _LEVELS = lim.A3_LATER[FULLMESH], lim.A3_LATER[HIERARCHY]

EXPERT_RULES: tuple[Rule, ...] = (
    Rule(
        id="X-09",
        param="moe_expert_num",
        statement=(
            f"moe_expert_num is in [1, {_MESH.moe_experts_max}]; A3 hierarchy "
            f"[1, {_LEVELS.moe_experts_max}]. Kernels for A2 up to CANN 8.2, and in hierarchy "
            f"later, stop at {_A2.moe_experts_warn}: a warning."
        ),
        source=f"{DOCS}; {TILING}",
        check=_moe_experts,
        breaks={"moe_expert_num": 1040},
        only={"product": ("A3",), "path": MESHES},
        holds={"moe_expert_num": 512},
    ),
    Rule(
        id="X-10",
        param="moe_expert_num",
        statement="moe_expert_num is a multiple of the number of MoE ranks, ep_world_size - "
        "shared_expert_rank_num (A2: ep_world_size).",
        source=f"{DOCS}; {TILING}",
        message="is {value}, needed: {limit} (the number of MoE ranks)",
        check=_moe_experts_divide,
        safety=True,
        breaks={"moe_expert_num": 100},
        holds={"moe_expert_num": 96},
    ),
    Rule(
        id="X-11",
        param="moe_expert_num",
        statement=(
            "On A3 local_expert_num * ep_world_size is at most "
            f"{lim.A3_FIRST[FULLMESH].local_times_ep_max} (cann-8.2) or "
            f"{_MESH.local_times_ep_max} (cann-9.1). It can only bind with shared-expert ranks. "
            f"A3 hierarchy: more than {_LEVELS.local_experts_warn} experts per rank is a warning."
        ),
        source=f"{DOCS}; {ACLNN_DOC}",
        message="gives local_expert_num * ep_world_size = {value}, the limit is {limit}",
        check=_local_experts_a3,
        products=("A3",),
        breaks={
            "ep_world_size": 96,
            "shared_expert_num": 1,
            "shared_expert_rank_num": 64,
            "moe_expert_num": 1024,
        },
        only={"path": MESHES},
        holds={
            "ep_world_size": 40,
            "shared_expert_num": 1,
            "shared_expert_rank_num": 8,
            "moe_expert_num": 1024,
        },
    ),
    Rule(
        id="X-12",
        param="moe_expert_num",
        statement=f"A2 full mesh: at most {_A2.local_experts_max} experts per rank.",
        source=SEED_DOC,
        message="gives {value} experts per rank, the limit is {limit}",
        check=_local_experts_a2,
        products=("A2",),
        contracts=(CANN_8_2,),
        paths=(FULLMESH,),
        breaks={"moe_expert_num": 512},
        holds={"moe_expert_num": 384},
        note="Dropped from the documents of cann-9.1.",
    ),
    Rule(
        id="X-15",
        param="moe_expert_num",
        statement="With tp_world_size = 2 every MoE rank has exactly one expert.",
        source=f"{SEED_DOC}; {TILING}",
        message="gives {value} experts per rank, needed with TP: {limit}",
        check=_tp_one_expert,
        products=("A3",),
        contracts=(CANN_8_2,),
        safety=True,
        breaks={"tp_world_size": 2, "group_tp": "tp_group", "moe_expert_num": 32},
        holds={"tp_world_size": 2, "group_tp": "tp_group", "moe_expert_num": 16},
    ),
    Rule(
        id="X-27",
        param="moe_expert_num",
        statement=(
            "zero_expert_num, copy_expert_num and const_expert_num are not negative, and all "
            "experts together are fewer than 2^31 - 1."
        ),
        source=f"{CURRENT_DOC}; {TILING}",
        message="is {value}, allowed: {limit}",
        check=_special_counts,
        contracts=(CANN_9_1,),
        paths=MESHES,
        safety=True,
        breaks={"zero_expert_num": 2**31},
        holds={"zero_expert_num": 2},
    ),
    Rule(
        id="X-28",
        param="zero_expert_num",
        statement=(
            "Special experts: none under cann-8.2 and in hierarchy; zero and copy on A2 full "
            "mesh; zero, copy and const on A3 full mesh."
        ),
        source=f"{CURRENT_DOC}; {TILING}",
        message="is {value}; this path takes {limit} only",
        check=_special_allowed,
        safety=True,
        breaks={"const_expert_num": 1},
        excluding=(
            {"product": "A3", "contract": CANN_9_1, "path": FULLMESH},
            {"path": FULLMESH_V2},
        ),
        holds={"const_expert_num": 0},
    ),
)
