"""X-xx, the tokens: batch, hidden size and top-k."""

from __future__ import annotations

from ascend_moe.contract import limits as lim
from ascend_moe.contract.call import Call
from ascend_moe.contract.limits import FULLMESH, FULLMESH_V2, HIERARCHY
from ascend_moe.contract.rules.rule import (
    ACLNN_DOC,
    CURRENT_DOC,
    DOCS,
    RANKS,
    TILING,
    Breach,
    Finding,
    Rule,
)
from ascend_moe.contract.signature import CANN_9_1


def _global_batch(call: Call) -> Finding:
    if call.global_bs == 0:
        return None
    batch, ep = call.batch, call.ep_world_size
    if batch is None or ep <= 0:
        return None
    if call.global_bs % ep or call.global_bs < batch * ep:
        return Breach(call.global_bs, f"0, or a multiple of {ep} that is at least {batch * ep}")
    return None


def _batch_size(call: Call) -> Finding:
    batch, bound = call.batch, call.path_limits.batch_max
    if batch is None:
        return None
    path = call.path
    if not 1 <= batch <= bound:
        return Breach(batch, f"1..{bound} ({path})")
    if call.max_batch is not None and call.max_batch > bound:
        return Breach(
            call.max_batch,
            bound,
            "global_bs",
            "means a largest batch of {value}; no rank may have more than {limit}",
            "warning",
        )
    return None


def _hidden_size(call: Call) -> Finding:
    hidden, limits = call.hidden, call.path_limits
    if hidden is None or call.packed:
        return None
    if not limits.hidden_min <= hidden <= limits.hidden_max or hidden % limits.hidden_multiple:
        step = f", a multiple of {limits.hidden_multiple}" if limits.hidden_multiple > 1 else ""
        return Breach(hidden, f"{limits.hidden_min}..{limits.hidden_max}{step} ({call.path})")
    return None


def _topk(call: Call) -> Finding:
    experts, count = call.experts_total, call.topk
    if count is None:
        return None
    bound = lim.path_limits(call.contract, call.product, FULLMESH).topk_max
    if not 1 <= count <= bound:
        return Breach(count, f"1..{bound}")
    if 0 < call.moe_expert_num <= experts < count:
        return Breach(count, f"1..{experts}, the number of experts")
    return None


def _equal_batches(call: Call) -> Finding:
    batch = call.batch
    if call.path_limits.uneven_batches or batch is None or call.max_batch is None:
        return None
    if call.max_batch != batch:
        return Breach(call.global_bs, f"0 or BS * ep = {batch * call.ep_world_size}")
    return None


def _fullmesh_v2_sizes(call: Call) -> Finding:
    limits, found = call.path_limits, []
    if call.batch is not None and call.batch > limits.batch_max:
        found.append(
            Breach(call.batch, f"1..{limits.batch_max}", "x", "BS is {value}, allowed: {limit}")
        )
    if call.topk is not None and call.topk > limits.topk_max:
        found.append(
            Breach(
                call.topk, f"1..{limits.topk_max}", "expert_ids", "K is {value}, allowed: {limit}"
            )
        )
    return found or None


V1_AND_HIERARCHY = (FULLMESH, HIERARCHY)

_A2_MESH, _A2_LEVELS = lim.A2_LATER[FULLMESH], lim.A2_LATER[HIERARCHY]

_MESH, _LEVELS = lim.A3_LATER[FULLMESH], lim.A3_LATER[HIERARCHY]

_V2 = lim.A3_LATER[FULLMESH_V2]

TOKEN_RULES: tuple[Rule, ...] = (
    Rule(
        id="X-22",
        param="global_bs",
        statement=(
            "global_bs is 0, or max_bs * ep_world_size, where max_bs is the largest batch of "
            "any rank."
        ),
        source=f"{DOCS}; {TILING}",
        check=_global_batch,
        safety=True,
        breaks={"global_bs": 130},
        holds={"global_bs": 128},
    ),
    Rule(
        id="X-24",
        param="x",
        statement=(
            f"1 <= BS <= {_MESH.batch_max} on A3 (hierarchy {_LEVELS.batch_max}, fullmesh_v2: "
            f"X-43), {_A2_MESH.batch_max} on A2 (hierarchy {_A2_LEVELS.batch_max} under "
            "cann-9.1). A global_bs that implies more is a warning."
        ),
        source=f"{DOCS}; {TILING}",
        message="BS is {value}, allowed: {limit}",
        check=_batch_size,
        paths=V1_AND_HIERARCHY,
        breaks={"BS": 513},
        holds={"BS": 256},
    ),
    Rule(
        id="X-25",
        param="x",
        statement=(
            f"H is in [{_MESH.hidden_min}, {_MESH.hidden_max}] on A3 (hierarchy "
            f"[{_LEVELS.hidden_min}, {_LEVELS.hidden_max}], a multiple of "
            f"{_LEVELS.hidden_multiple}), and a multiple of {_A2_MESH.hidden_multiple} up to "
            f"{_A2_MESH.hidden_max} on A2 (hierarchy {_A2_LEVELS.hidden_max} under cann-9.1). "
            "A3 full mesh has no alignment rule."
        ),
        source=f"{DOCS}; {ACLNN_DOC}; {TILING}",
        message="H is {value}, allowed: {limit}",
        check=_hidden_size,
        breaks={"H": 10241},
        holds={"H": 7168},
    ),
    Rule(
        id="X-26",
        param="expert_ids",
        statement=(
            f"1 <= K <= {_MESH.topk_max}, and K is at most the number of experts (fullmesh_v2: "
            "also X-43)."
        ),
        source=f"{DOCS}; {TILING}",
        message="K is {value}, allowed: {limit}",
        check=_topk,
        breaks={"K": 17, "moe_expert_num": 32},
        only={"path": V1_AND_HIERARCHY},
        holds={"K": 12, "moe_expert_num": 32},
    ),
    Rule(
        id="X-41",
        param="global_bs",
        statement=(
            "A3 hierarchy needs the same BS on every rank: global_bs is 0 or BS * ep_world_size."
        ),
        source=f"{TILING}/arch22",
        check=_equal_batches,
        products=("A3",),
        contracts=(CANN_9_1,),
        paths=(HIERARCHY,),
        breaks={"global_bs": 256},
        holds={"global_bs": 128},
    ),
    Rule(
        id="X-43",
        param="x",
        statement=f"fullmesh_v2: BS <= {_V2.batch_max} and K <= {_V2.topk_max}.",
        source=f"{CURRENT_DOC}; {TILING}",
        check=_fullmesh_v2_sizes,
        products=("A3",),
        operators=("dispatch",),
        contracts=(CANN_9_1,),
        paths=(FULLMESH_V2,),
        breaks={"BS": 257},
        holds={"BS": 256},
    ),
    Rule(
        id="X-45",
        param="global_bs",
        statement=(
            "When BS differs over the ranks, every rank passes global_bs = max_bs * "
            "ep_world_size (not 0) and no rank masks a token."
        ),
        source=DOCS,
        checked=RANKS,
        note="Compared between the ranks: in every call on CPU, once per group on an NPU.",
    ),
)
