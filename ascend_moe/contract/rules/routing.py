"""X-xx, where tokens go: expert ids and the mask."""

from __future__ import annotations

from ascend_moe.contract.call import Call
from ascend_moe.contract.limits import FULLMESH, FULLMESH_V2, HIERARCHY
from ascend_moe.contract.rules.rule import (
    DOCS,
    KERNEL,
    TILING,
    VALUES,
    Breach,
    Finding,
    Rule,
    shape_breach,
)
from ascend_moe.contract.rules.values import ids_distinct, ids_in_range, mask_order
from ascend_moe.contract.signature import CANN_8_2, CANN_9_1


def _uneven_means_unmasked(call: Call) -> Finding:
    batch, ep = call.batch, call.ep_world_size
    if call.mask is None or batch is None or call.max_batch is None:
        return None
    if call.max_batch > batch:
        return Breach(
            f"given while global_bs = {call.global_bs} > BS * ep = {batch * ep}",
            "None, or global_bs = 0",
        )
    return None


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


def _mask_without_effect(call: Call) -> Finding:
    if call.x_active_mask is None or _mask_shape(call) is not None:
        return None
    return Breach("a tensor", "None, as tokens that it switches off travel and are summed too")


def _expert_ids_shape(call: Call) -> Finding:
    return shape_breach(call.expert_ids, "expert_ids", ("int32",), (None, None))


NO_MASK = (  # where X-33 refuses every mask, or X-46 warns of it
    {"product": "A2", "contract": CANN_8_2},
    {"product": "A2", "path": HIERARCHY},
)

ROUTING_RULES: tuple[Rule, ...] = (
    Rule(
        id="X-23",
        param="x_active_mask",
        statement=(
            "When batches differ over the ranks (global_bs > BS * ep_world_size), no token "
            "may be masked: x_active_mask is None."
        ),
        source=f"{DOCS}; {TILING}",
        message="is {value}, needed: {limit}",
        check=_uneven_means_unmasked,
        breaks={"global_bs": 256, "x_active_mask": ("BS", "bool")},
        excluding=(*NO_MASK, {"product": "A3", "path": HIERARCHY}),
        holds={"global_bs": 128, "x_active_mask": ("BS", "bool")},
        note="Tiling refuses even a mask that is true everywhere.",
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
        statement=(
            "x_active_mask stays None on A2 full mesh under cann-8.2; A3 hierarchy takes no 2-D "
            "mask."
        ),
        source=f"{DOCS}; {TILING}/arch22",
        message="is {value}, allowed: {limit}",
        check=_mask_allowed,
        breaks={"x_active_mask": ("BS", "K", "bool")},
        excluding=(
            {"product": "A2", "contract": CANN_9_1, "path": FULLMESH},
            {"product": "A2", "path": HIERARCHY},
            {"product": "A3", "path": FULLMESH},
            {"path": FULLMESH_V2},
        ),
        holds={"x_active_mask": None},
    ),
    Rule(
        id="X-34",
        param="x_active_mask",
        statement=(
            "A 1-D mask has every true before every false. Under cann-8.2 no row of a 2-D "
            "mask with a true follows a row without one."
        ),
        source=DOCS,
        message="token {value} is active after an inactive one, needed: {limit}",
        check=mask_order,
        checked=VALUES,
        safety=True,
        breaks={"x_active_mask": ("BS", "bool", "gap")},
        excluding=NO_MASK,
        holds={"x_active_mask": ("BS", "bool")},
        note=(
            "The kernels only count the mask and take the first tokens, so a gap gives "
            "silently wrong results."
        ),
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
        statement=(
            "Every expert id of an active token is in [0, moe_expert_num), with special "
            "experts in [0, moe + zero + copy + const)."
        ),
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
        id="X-46",
        param="x_active_mask",
        statement=(
            "A2 hierarchy ignores x_active_mask: tokens that it switches off travel and are summed "
            "like all others, so their expert ids must be valid too."
        ),
        source=f"{DOCS}; {KERNEL}/arch22/moe_distribute_dispatch_v2_a2.cpp",
        message="is {value}, which A2 hierarchy ignores; recommended: {limit}",
        check=_mask_without_effect,
        products=("A2",),
        paths=(HIERARCHY,),
        level="warning",
        breaks={"x_active_mask": ("BS", "bool")},
        holds={"x_active_mask": None},
        note=(
            "The documents say None, tiling looks at the shape alone (X-32), and the kernels have "
            "no mask there. vLLM passes one in every such call."
        ),
    ),
)
