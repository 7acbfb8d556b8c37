"""X-xx, who takes part: the EP and TP groups, their sizes and the rank in them."""

from __future__ import annotations

from ascend_moe.contract import limits as lim
from ascend_moe.contract.call import Call
from ascend_moe.contract.limits import FULLMESH, HIERARCHY, MESHES
from ascend_moe.contract.rules.rule import (
    ACLNN_DOC,
    CURRENT_DOC,
    DOCS,
    DOCUMENTED,
    RANKS,
    SEED_DOC,
    TILING,
    WRAPPER,
    Breach,
    Finding,
    Rule,
)
from ascend_moe.contract.signature import CANN_8_2, CANN_9_1


def _group_ep_length(call: Call) -> Finding:
    if call.group_ep is None:
        return None
    length = len(call.group_ep.encode())
    if not 1 <= length <= lim.NAME_BYTES_MAX:
        return Breach(length, f"1..{lim.NAME_BYTES_MAX}")
    return None


def _groups_differ(call: Call) -> Finding:
    if call.tp_world_size == 2 and call.group_tp == call.group_ep:
        return Breach(call.group_tp, "a name other than group_ep")
    return None


def _group_tp_length(call: Call) -> Finding:
    if call.tp_world_size != 2:
        return None
    length = len(call.group_tp.encode())
    if not 1 <= length <= lim.NAME_BYTES_MAX:
        return Breach(length, f"1..{lim.NAME_BYTES_MAX}")
    return None


def _ep_size(call: Call) -> Finding:
    sizes = call.path_limits.ep_sizes
    if call.ep_world_size not in sizes:
        return Breach(call.ep_world_size, str(sizes))
    return None


def _ep_rank(call: Call) -> Finding:
    if not 0 <= call.ep_rank_id < call.ep_world_size:
        return Breach(call.ep_rank_id, f"0..{call.ep_world_size - 1}")
    return None


def _tp_size(call: Call) -> Finding:
    if call.tp_world_size not in call.limits.tp_sizes:
        return Breach(call.tp_world_size, " or ".join(map(str, call.limits.tp_sizes)))
    return None


def _tp_rank(call: Call) -> Finding:
    ranks = call.tp_world_size if call.tp_world_size == 2 and 2 in call.limits.tp_sizes else 1
    if not 0 <= call.tp_rank_id < ranks:
        return Breach(call.tp_rank_id, "0 or 1" if ranks == 2 else "0")
    return None


def _shard_type(call: Call) -> Finding:
    if call.expert_shard_type not in lim.EXPERT_SHARD_TYPES:
        return Breach(call.expert_shard_type, 0)
    return None


_MESH = lim.A3_LATER[FULLMESH].ep_sizes
_LEVELS = lim.A3_LATER[HIERARCHY].ep_sizes

RANK_RULES: tuple[Rule, ...] = (
    Rule(
        id="X-01",
        param="group_ep",
        statement=f"group_ep is a communicator name of 1 to {lim.NAME_BYTES_MAX} bytes.",
        source=f"{DOCS}; {TILING}",
        message="has {value} bytes, allowed: {limit}",
        check=_group_ep_length,
        safety=True,
        breaks={"group_ep": "g" * 128},
        holds={"group_ep": "g" * 127},
    ),
    Rule(
        id="X-02",
        param="group_tp",
        statement=(
            "With tp_world_size = 2, group_tp differs from group_ep. Without TP it is ignored."
        ),
        source=SEED_DOC,
        message="is {value}, needed: {limit}",
        check=_groups_differ,
        products=("A3",),
        contracts=(CANN_8_2,),
        safety=True,
        breaks={"tp_world_size": 2, "group_tp": "ep_group", "moe_expert_num": 16},
        holds={"tp_world_size": 2, "group_tp": "tp_group", "moe_expert_num": 16},
        note="Tolerated without TP: serving engines pass the same name for both.",
    ),
    Rule(
        id="X-03",
        param="group_tp",
        statement=(
            f"With tp_world_size = 2, group_tp is a communicator name of 1 to {lim.NAME_BYTES_MAX} "
            "bytes."
        ),
        source=f"{SEED_DOC}; {TILING}",
        message="has {value} bytes, allowed: {limit}",
        check=_group_tp_length,
        products=("A3",),
        contracts=(CANN_8_2,),
        safety=True,
        breaks={"tp_world_size": 2, "group_tp": "", "moe_expert_num": 16},
        holds={"tp_world_size": 2, "group_tp": "t", "moe_expert_num": 16},
    ),
    Rule(
        id="X-04",
        param="ep_world_size",
        statement=f"On A3 ep_world_size is in [{_MESH.low}, {_MESH.high}] (hierarchy: X-06).",
        source=f"{DOCS}; {TILING}",
        check=_ep_size,
        products=("A3",),
        paths=MESHES,
        breaks={"ep_world_size": 769, "moe_expert_num": 769},
        holds={"ep_world_size": 768, "moe_expert_num": 768},
    ),
    Rule(
        id="X-05",
        param="ep_world_size",
        statement="On A2 ep_world_size is one of the documented sizes.",
        source=f"{DOCS}",
        check=_ep_size,
        products=("A2",),
        breaks={"ep_world_size": 48, "moe_expert_num": 48},
        holds={"ep_world_size": 64, "moe_expert_num": 64},
        note=(
            "Tiling accepts every multiple of 8; the document list of the contract is what is "
            "checked."
        ),
    ),
    Rule(
        id="X-06",
        param="ep_world_size",
        statement=(
            f"A3 hierarchy: ep_world_size is a multiple of {_LEVELS.multiple} in "
            f"[{_LEVELS.low}, {_LEVELS.high}]."
        ),
        source=f"{CURRENT_DOC}; {TILING}/arch22",
        check=_ep_size,
        products=("A3",),
        contracts=(CANN_9_1,),
        paths=(HIERARCHY,),
        breaks={"ep_world_size": 24, "moe_expert_num": 48},
        holds={"ep_world_size": 32, "moe_expert_num": 64},
    ),
    Rule(
        id="X-07",
        param="ep_rank_id",
        statement="0 <= ep_rank_id < ep_world_size.",
        source=f"{DOCS}; {TILING}; {WRAPPER}",
        check=_ep_rank,
        safety=True,
        breaks={"ep_rank_id": 16},
        holds={"ep_rank_id": 15},
    ),
    Rule(
        id="X-08",
        param="ep_rank_id",
        statement=(
            "ep_rank_id is distinct on the ranks of the group and equal to the rank's index in it."
        ),
        source=DOCS,
        checked=RANKS,
        note="Compared between the ranks: in every call on CPU, once per group on an NPU.",
    ),
    Rule(
        id="X-13",
        param="tp_world_size",
        statement="tp_world_size is 0 or 1 (no TP), or 2 on A3 under cann-8.2.",
        source=f"{DOCS}; {TILING}",
        check=_tp_size,
        safety=True,
        breaks={"tp_world_size": 3},
        holds={"tp_world_size": 1},
    ),
    Rule(
        id="X-14",
        param="tp_rank_id",
        statement="tp_rank_id is 0 without TP and 0 or 1 with tp_world_size = 2.",
        source=f"{DOCS}; {TILING}",
        check=_tp_rank,
        safety=True,
        breaks={"tp_world_size": 1, "tp_rank_id": 1},
        holds={"tp_world_size": 1, "tp_rank_id": 0},
    ),
    Rule(
        id="X-16",
        param="expert_shard_type",
        statement="expert_shard_type is 0: shared-expert ranks come first.",
        source=f"{DOCS}; {TILING}",
        check=_shard_type,
        safety=True,
        breaks={"expert_shard_type": 1},
        holds={"expert_shard_type": 0},
    ),
    Rule(
        id="X-40",
        param="group_ep",
        statement=(
            "These are equal on all ranks, in dispatch and combine, and across layers: "
            "group_ep, ep_world_size, moe_expert_num, expert_shard_type, shared_expert_num, "
            "shared_expert_rank_num, global_bs, comm_alg, HCCL_BUFFSIZE and the driver (with "
            "TP also group_tp and tp_world_size)."
        ),
        source=f"{DOCS}; {ACLNN_DOC}",
        checked=RANKS,
        note="Compared between the ranks: in every call on CPU, once per group on an NPU.",
    ),
    Rule(
        id="X-42",
        param="ep_world_size",
        statement=(
            "A2 uses 2, 4 or 8 servers of 8 ranks, connected by switches; A3 stays inside one "
            "super node except in hierarchy."
        ),
        source=f"{DOCS}; {TILING}/arch22",
        checked=DOCUMENTED,
        note=(
            "The server count follows from ep_world_size and X-05; the topology is not "
            "visible in a call."
        ),
    ),
)
