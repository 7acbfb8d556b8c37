"""X-xx: rules of both operators."""

from __future__ import annotations

from ascend_moe.contract import limits as lim
from ascend_moe.contract.call import Call
from ascend_moe.contract.limits import FULLMESH, FULLMESH_V2, HIERARCHY
from ascend_moe.contract.rules.rule import (
    ACLNN_DOC,
    CURRENT_DOC,
    DOCS,
    DOCUMENTED,
    RANKS,
    SEED_DOC,
    TILING,
    VALUES,
    WRAPPER,
    Breach,
    Finding,
    Rule,
    shape_breach,
)
from ascend_moe.contract.rules.values import (
    ids_distinct,
    ids_in_range,
    mask_order,
    storage_format,
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
            message="gives {value} experts per rank; the aclnn documents allow {limit} in hierarchy",
            level="warning",
        )
    return None


def _local_experts_a2(call: Call) -> Finding:
    local, bound = call.local_experts, call.path_limits.local_experts_max
    if local is not None and bound is not None and local > bound:
        return Breach(local, bound)
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


def _tp_one_expert(call: Call) -> Finding:
    if call.tp_world_size == 2 and call.local_experts is not None and call.local_experts != 1:
        return Breach(call.local_experts, 1)
    return None


def _shard_type(call: Call) -> Finding:
    if call.expert_shard_type not in lim.EXPERT_SHARD_TYPES:
        return Breach(call.expert_shard_type, 0)
    return None


def _shared_expert_count(call: Call) -> Finding:
    if not 0 <= call.shared_expert_num <= lim.SHARED_EXPERTS_MAX:
        return Breach(call.shared_expert_num, f"0..{lim.SHARED_EXPERTS_MAX}")
    return None


def _shared_rank_count(call: Call) -> Finding:
    ranks = call.shared_expert_rank_num
    if not call.path_limits.shared_ranks and call.path == HIERARCHY and ranks:
        return Breach(
            ranks, 0, message="is {value}; hierarchy has no shared-expert ranks: use {limit}"
        )
    if not 0 <= ranks < max(call.ep_world_size, 1):
        return Breach(ranks, f"0..{call.ep_world_size - 1}")
    return None


def _shared_both_or_none(call: Call) -> Finding:
    experts, ranks = call.shared_expert_num, call.shared_expert_rank_num
    if experts == 0 and ranks > 0:
        return Breach(experts, f">= 1, because shared_expert_rank_num is {ranks}")
    if 1 < experts <= lim.SHARED_EXPERTS_MAX and ranks == 0:
        return Breach(experts, "0 or 1, because shared_expert_rank_num is 0")
    return None


def _shared_ranks_divide(call: Call) -> Finding:
    experts, ranks = call.shared_expert_num, call.shared_expert_rank_num
    if experts > 0 and ranks > 0 and ranks % experts:
        return Breach(ranks, f"a multiple of shared_expert_num = {experts}")
    return None


def _no_shared_on_a2(call: Call) -> Finding:
    found = []
    if call.shared_expert_num not in (0, 1):
        found.append(Breach(call.shared_expert_num, "0 or 1", "shared_expert_num"))
    if call.shared_expert_rank_num != 0:
        found.append(Breach(call.shared_expert_rank_num, 0, "shared_expert_rank_num"))
    return found or None


def _global_batch(call: Call) -> Finding:
    if call.global_bs == 0:
        return None
    batch, ep = call.batch, call.ep_world_size
    if batch is None or ep <= 0:
        return None
    if call.global_bs % ep or call.global_bs < batch * ep:
        return Breach(call.global_bs, f"0, or a multiple of {ep} that is at least {batch * ep}")
    return None


def _uneven_means_unmasked(call: Call) -> Finding:
    batch, ep = call.batch, call.ep_world_size
    if call.x_active_mask is None or batch is None or call.max_batch is None:
        return None
    if call.max_batch > batch:
        return Breach(
            f"given while global_bs = {call.global_bs} > BS * ep = {batch * ep}",
            "None, or global_bs = 0",
        )
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
    allowed = call.path_limits.special_experts
    found = [
        Breach(getattr(call, f"{kind}_expert_num"), 0, f"{kind}_expert_num")
        for kind in ("zero", "copy", "const")
        if kind not in allowed and getattr(call, f"{kind}_expert_num") != 0
    ]
    return found or None


def _comm_algorithm(call: Call) -> Finding:
    allowed = call.limits.comm_algs[call.op]
    if call.comm_alg in allowed:
        return None
    listed = ", ".join(f'"{name}"' for name in allowed)
    if call.op == "combine" and call.comm_alg in call.limits.comm_algs["dispatch"]:
        return Breach(
            call.comm_alg,
            listed,
            message="is {value}; combine documents {limit} and ignores this one",
            level="warning",
        )
    return Breach(call.comm_alg, listed)


def _no_elastic_info(call: Call) -> Finding:
    if call.elastic_info is not None:
        return Breach("a tensor", "None", message="is {value}; it is reserved, pass {limit}")
    return None


def _performance_info(call: Call) -> Finding:
    info = call.performance_info
    if info is None:
        return None
    if not call.path_limits.performance_info:
        where = f"{call.product} {call.path} under {call.contract}"
        return Breach("a tensor", "None", message=f"is {{value}}; {where} takes {{limit}} only")
    return shape_breach(info, "performance_info", ("int64",), (call.ep_world_size,))


def _mask_shape(call: Call) -> Finding:
    mask = call.x_active_mask
    if mask is None or not call.path_limits.mask_ranks:
        return None
    shape = (call.batch,) if len(mask.shape) == 1 else (call.batch, call.topk)
    return shape_breach(mask, "x_active_mask", ("bool",), shape)


def _mask_allowed(call: Call) -> Finding:
    mask, allowed = call.x_active_mask, call.path_limits.mask_ranks
    if mask is None:
        return None
    if not allowed:
        return Breach("a tensor", f"None on {call.product} {call.path}")
    if len(mask.shape) == 2 and 2 not in allowed:
        return Breach("2-D", f"1-D on {call.product} {call.path}")
    return None


def _expert_ids_shape(call: Call) -> Finding:
    return shape_breach(call.expert_ids, "expert_ids", ("int32",), (None, None))


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


def _scales_contiguous(call: Call) -> Finding:
    is_contiguous = getattr(call.scales, "is_contiguous", None)
    if is_contiguous is not None and not is_contiguous():
        return Breach(
            "not contiguous", "contiguous", message="is {value}; the documents ask for {limit}"
        )
    return None


def _window_large_enough(call: Call) -> Finding:
    from ascend_moe.contract.window import window_breach

    return window_breach(call)


V1_AND_HIERARCHY = (FULLMESH, HIERARCHY)
MESHES = (FULLMESH, FULLMESH_V2)
NO_MASK = (  # where X-33 refuses every mask
    {"product": "A2", "contract": CANN_8_2},
    {"product": "A2", "path": HIERARCHY},
)

SHARED_RULES: tuple[Rule, ...] = (
    Rule(
        id="X-01",
        param="group_ep",
        statement="group_ep is a communicator name of 1 to 127 bytes.",
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
        statement="With tp_world_size = 2, group_tp differs from group_ep. Without TP it is ignored.",
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
        statement="With tp_world_size = 2, group_tp is a communicator name of 1 to 127 bytes.",
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
        statement="On A3 ep_world_size is in [2, 768] (hierarchy: X-06).",
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
        note="Tiling accepts every multiple of 8; the document list of the contract is what is checked.",
    ),
    Rule(
        id="X-06",
        param="ep_world_size",
        statement="A3 hierarchy: ep_world_size is a multiple of 16 in [16, 256].",
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
        statement="ep_rank_id is distinct on the ranks of the group and equal to the rank's index in it.",
        source=DOCS,
        checked=RANKS,
        note="Needs all ranks: see across_ranks.py.",
    ),
    Rule(
        id="X-09",
        param="moe_expert_num",
        statement="moe_expert_num is in [1, 1024]; A3 hierarchy [1, 512]. Kernels for A2 up to CANN 8.2, and in "
        "hierarchy later, stop at 512: a warning.",
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
        statement="On A3 local_expert_num * ep_world_size is at most 1280 (cann-8.2) or 2048 (cann-9.1). It can only "
        "bind with shared-expert ranks. A3 hierarchy: more than 24 experts per rank is a warning.",
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
        statement="A2 full mesh: at most 24 experts per rank.",
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
        id="X-17",
        param="shared_expert_num",
        statement="On A3 shared_expert_num is in [0, 4].",
        source=f"{DOCS}; {TILING}",
        check=_shared_expert_count,
        products=("A3",),
        paths=MESHES,
        safety=True,
        breaks={"shared_expert_num": 5, "shared_expert_rank_num": 5, "moe_expert_num": 22},
        holds={"shared_expert_num": 4, "shared_expert_rank_num": 4, "moe_expert_num": 24},
    ),
    Rule(
        id="X-18",
        param="shared_expert_rank_num",
        statement="On A3 shared_expert_rank_num is in [0, ep_world_size); 0 in hierarchy.",
        source=f"{DOCS}; {TILING}; {WRAPPER}",
        check=_shared_rank_count,
        products=("A3",),
        safety=True,
        breaks={"shared_expert_num": 1, "shared_expert_rank_num": 16},
        holds={"shared_expert_num": 1, "shared_expert_rank_num": 0},
    ),
    Rule(
        id="X-19",
        param="shared_expert_num",
        statement="shared_expert_num and shared_expert_rank_num are both zero or both positive; (1, 0), the default, "
        "also means no shared expert.",
        source=f"{TILING}; {WRAPPER}",
        message="is {value}, needed: {limit}",
        check=_shared_both_or_none,
        products=("A3",),
        paths=MESHES,
        safety=True,
        breaks={"shared_expert_num": 2, "shared_expert_rank_num": 0},
        holds={"shared_expert_num": 1, "shared_expert_rank_num": 0},
        note="The documents only say that shared_expert_rank_num = 0 means no shared expert; wrapper and tiling refuse.",
    ),
    Rule(
        id="X-20",
        param="shared_expert_rank_num",
        statement="shared_expert_rank_num is a multiple of shared_expert_num.",
        source=f"{DOCS}; {TILING}; {WRAPPER}",
        message="is {value}, needed: {limit}",
        check=_shared_ranks_divide,
        products=("A3",),
        paths=MESHES,
        safety=True,
        breaks={"shared_expert_num": 2, "shared_expert_rank_num": 3, "moe_expert_num": 26},
        holds={"shared_expert_num": 2, "shared_expert_rank_num": 2, "moe_expert_num": 28},
    ),
    Rule(
        id="X-21",
        param="shared_expert_rank_num",
        statement="A2 has no shared experts: shared_expert_num is 0 or 1 and shared_expert_rank_num is 0.",
        source=f"{DOCS}; {ACLNN_DOC}",
        check=_no_shared_on_a2,
        products=("A2",),
        safety=True,
        breaks={"shared_expert_rank_num": 2},
        holds={"shared_expert_num": 0, "shared_expert_rank_num": 0},
    ),
    Rule(
        id="X-22",
        param="global_bs",
        statement="global_bs is 0, or max_bs * ep_world_size, where max_bs is the largest batch of any rank.",
        source=f"{DOCS}; {TILING}",
        check=_global_batch,
        safety=True,
        breaks={"global_bs": 130},
        holds={"global_bs": 128},
    ),
    Rule(
        id="X-23",
        param="x_active_mask",
        statement="When batches differ over the ranks (global_bs > BS * ep_world_size), no token may be masked: "
        "x_active_mask is None.",
        source=f"{DOCS}; {TILING}",
        message="is {value}, needed: {limit}",
        check=_uneven_means_unmasked,
        breaks={"global_bs": 256, "x_active_mask": ("BS", "bool")},
        excluding=(*NO_MASK, {"product": "A3", "path": HIERARCHY}),
        holds={"global_bs": 128, "x_active_mask": ("BS", "bool")},
        note="Tiling refuses even a mask that is true everywhere.",
    ),
    Rule(
        id="X-24",
        param="x",
        statement="1 <= BS <= 512 on A3 (hierarchy 256, fullmesh_v2: X-43), 256 on A2 (hierarchy 512 under cann-9.1). "
        "A global_bs that implies more is a warning.",
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
        statement="H is in [1024, 8192] on A3 (hierarchy [1024, 7168], a multiple of 32), and a multiple of 32 up to "
        "7168 on A2 (hierarchy 10240 under cann-9.1). A3 full mesh has no alignment rule.",
        source=f"{DOCS}; {ACLNN_DOC}; {TILING}",
        message="H is {value}, allowed: {limit}",
        check=_hidden_size,
        breaks={"H": 10241},
        holds={"H": 7168},
    ),
    Rule(
        id="X-26",
        param="expert_ids",
        statement="1 <= K <= 16, and K is at most the number of experts (fullmesh_v2: also X-43).",
        source=f"{DOCS}; {TILING}",
        message="K is {value}, allowed: {limit}",
        check=_topk,
        breaks={"K": 17, "moe_expert_num": 32},
        only={"path": V1_AND_HIERARCHY},
        holds={"K": 12, "moe_expert_num": 32},
    ),
    Rule(
        id="X-27",
        param="moe_expert_num",
        statement="zero_expert_num, copy_expert_num and const_expert_num are not negative, and all experts together "
        "are fewer than 2^31 - 1.",
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
        statement="Special experts: none under cann-8.2 and in hierarchy; zero and copy on A2 full mesh; zero, copy "
        "and const on A3 full mesh.",
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
    Rule(
        id="X-29",
        param="comm_alg",
        statement='comm_alg: none under cann-8.2; "", "fullmesh" or "hierarchy" on A2; "", "fullmesh_v1", '
        '"fullmesh_v2" or "hierarchy" for dispatch on A3; "" or "hierarchy" for combine on A3.',
        source=f"{CURRENT_DOC}; {TILING}",
        message="is {value}, allowed: {limit}",
        check=_comm_algorithm,
        safety=True,
        breaks={"comm_alg": "ccu"},
        holds={"comm_alg": ""},
        note='"0" is what old wrappers send on A2 and counts as "". A3 combine ignores the names of dispatch: a '
        "warning, because callers pass one dict to both.",
    ),
    Rule(
        id="X-30",
        param="elastic_info",
        statement="elastic_info is reserved and must be None.",
        source=CURRENT_DOC,
        check=_no_elastic_info,
        safety=True,
        breaks={"elastic_info": (36, "int32")},
        holds={"elastic_info": None},
    ),
    Rule(
        id="X-31",
        param="performance_info",
        statement="performance_info is None or int64 (ep_world_size,); None under cann-8.2 and in A3 hierarchy.",
        source=f"{CURRENT_DOC}; {TILING}",
        check=_performance_info,
        safety=True,
        breaks={"performance_info": (17, "int64")},
        holds={"performance_info": None},
    ),
    Rule(
        id="X-32",
        param="x_active_mask",
        statement="x_active_mask is None, or bool of shape (BS,) or (BS, K).",
        source=f"{DOCS}; {TILING}",
        check=_mask_shape,
        safety=True,
        breaks={"x_active_mask": (7, "bool")},
        excluding=NO_MASK,
        holds={"x_active_mask": ("BS", "bool")},
    ),
    Rule(
        id="X-33",
        param="x_active_mask",
        statement="x_active_mask stays None on A2 under cann-8.2 and in A2 hierarchy; A3 hierarchy takes no 2-D mask.",
        source=f"{DOCS}; {TILING}/arch22",
        message="is {value}, allowed: {limit}",
        check=_mask_allowed,
        breaks={"x_active_mask": ("BS", "K", "bool")},
        excluding=(
            {"product": "A2", "contract": CANN_9_1, "path": FULLMESH},
            {"product": "A3", "path": FULLMESH},
            {"path": FULLMESH_V2},
        ),
        holds={"x_active_mask": None},
    ),
    Rule(
        id="X-34",
        param="x_active_mask",
        statement="A 1-D mask has every true before every false. Under cann-8.2 no row of a 2-D mask with a true "
        "follows a row without one.",
        source=DOCS,
        message="token {value} is active after an inactive one, needed: {limit}",
        check=mask_order,
        checked=VALUES,
        safety=True,
        breaks={"x_active_mask": ("BS", "bool", "gap")},
        excluding=NO_MASK,
        holds={"x_active_mask": ("BS", "bool")},
        note="The kernels only count the mask and take the first tokens, so a gap gives silently wrong results.",
    ),
    Rule(
        id="X-35",
        param="expert_ids",
        statement="expert_ids is 2-D int32 of shape (BS, K).",
        source=f"{DOCS}; {TILING}",
        check=_expert_ids_shape,
        safety=True,
        breaks={"expert_ids": ("BS", "K", "int64")},
        holds={"expert_ids": ("BS", "K", "int32")},
    ),
    Rule(
        id="X-36",
        param="expert_ids",
        statement="Every expert id of an active token is in [0, moe_expert_num), with special experts in "
        "[0, moe + zero + copy + const).",
        source=DOCS,
        message="holds {value}, allowed: {limit}",
        check=ids_in_range,
        checked=VALUES,
        safety=True,
        breaks={"expert_ids": ("BS", "K", "int32", "too large")},
        holds={"expert_ids": ("BS", "K", "int32", "distinct")},
    ),
    Rule(
        id="X-37",
        param="expert_ids",
        statement="The K expert ids of an active token are distinct.",
        source=DOCS,
        message="{value}, needed: {limit}",
        check=ids_distinct,
        checked=VALUES,
        safety=True,
        breaks={"expert_ids": ("BS", "K", "int32", "twice")},
        holds={"expert_ids": ("BS", "K", "int32", "distinct")},
    ),
    Rule(
        id="X-38",
        param="x",
        statement="Tensors have format ND, never FRACTAL_NZ.",
        source=f"{DOCS}; {TILING}",
        message="has format {value}, allowed: {limit}",
        check=storage_format,
        checked=VALUES,
        note="Only an NPU tensor has another format; read under ASCEND_MOE_CHECK=full.",
    ),
    Rule(
        id="X-39",
        param="HCCL_BUFFSIZE",
        statement="The HCCL buffer of the EP group holds both windows: docs/buffer-size.md. An error on A3, a "
        "warning on A2.",
        source=f"{DOCS}; {TILING}",
        message="is {value} MB, needed: {limit} MB",
        check=_window_large_enough,
        breaks={"BS": 256, "H": 7168, "moe_expert_num": 128, "env": {"HCCL_BUFFSIZE": "200"}},
        holds={"BS": 256, "H": 7168, "moe_expert_num": 128, "env": {"HCCL_BUFFSIZE": "4000"}},
    ),
    Rule(
        id="X-40",
        param="group_ep",
        statement="These are equal on all ranks, in dispatch and combine, and across layers: group_ep, ep_world_size, "
        "moe_expert_num, expert_shard_type, shared_expert_num, shared_expert_rank_num, global_bs, comm_alg, "
        "HCCL_BUFFSIZE and the driver (with TP also group_tp and tp_world_size).",
        source=f"{DOCS}; {ACLNN_DOC}",
        checked=RANKS,
        note="Needs all ranks: see across_ranks.py.",
    ),
    Rule(
        id="X-41",
        param="global_bs",
        statement="A3 hierarchy needs the same BS on every rank: global_bs is 0 or BS * ep_world_size.",
        source=f"{TILING}/arch22",
        check=_equal_batches,
        products=("A3",),
        contracts=(CANN_9_1,),
        paths=(HIERARCHY,),
        breaks={"global_bs": 256},
        holds={"global_bs": 128},
    ),
    Rule(
        id="X-42",
        param="ep_world_size",
        statement="A2 uses 2, 4 or 8 servers of 8 ranks, connected by switches; A3 stays inside one super node "
        "except in hierarchy.",
        source=f"{DOCS}; {TILING}/arch22",
        checked=DOCUMENTED,
        note="The server count follows from ep_world_size and X-05; the topology is not visible in a call.",
    ),
    Rule(
        id="X-43",
        param="x",
        statement="fullmesh_v2: BS <= 256 and K <= 12.",
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
        id="X-44",
        param="scales",
        statement="Every input may be non-contiguous except scales.",
        source=DOCS,
        check=_scales_contiguous,
        operators=("dispatch",),
        level="warning",
        breaks={"quant_mode": 2, "scales": ("moe", "H", "float32", "strided")},
        only={"path": MESHES},
        holds={"quant_mode": 2, "scales": ("moe", "H", "float32")},
        note="The operator definition makes inputs contiguous, so it works in practice: a warning.",
    ),
    Rule(
        id="X-45",
        param="global_bs",
        statement="When BS differs over the ranks, every rank passes global_bs = max_bs * ep_world_size (not 0) and "
        "no rank masks a token.",
        source=DOCS,
        checked=RANKS,
        note="Needs all ranks: see across_ranks.py.",
    ),
)
