"""C-xx, what dispatch handed over. Buffers sized by A or counts may be larger, other shapes are exact."""

from __future__ import annotations

from ascend_moe.contract.call import Call
from ascend_moe.contract.limits import FULLMESH, HIERARCHY
from ascend_moe.contract.rules.rule import (
    ACLNN_DOC,
    COMBINE,
    DOCS,
    DOCUMENTED,
    SEED_DOC,
    TILING,
    WRAPPER,
    Breach,
    Finding,
    Rule,
    shape_breach,
)
from ascend_moe.contract.shapes import ASSIST_WORDS_PER_ROW, RANKS_PER_SERVER_IN_COUNTS
from ascend_moe.contract.signature import CANN_8_2


def _expand_x(call: Call) -> Finding:
    return shape_breach(call.tokens, "expand_x", ("bfloat16", "float16"), (None, None))


def _expand_x_rows(call: Call) -> Finding:
    shape = call.tokens.shape
    if call.rows is None or len(shape) != 2:
        return None
    needed = call.rows * call.tp_ranks
    if shape[0] < needed:
        return Breach(shape[0], f"at least {needed}")
    return None


def _assist_info(call: Call) -> Finding:
    rows = call.rows
    shape = (None if rows is None else rows * ASSIST_WORDS_PER_ROW,)
    return shape_breach(
        call.assist_info_for_combine, "assist_info_for_combine", ("int32",), shape, at_least=True
    )


def _ep_send_counts(call: Call) -> Finding:
    return shape_breach(
        call.ep_send_counts, "ep_send_counts", ("int32",), (count_words(call),), at_least=True
    )


def count_words(call: Call) -> int | None:
    """Words of ep_send_counts that combine reads; hierarchy adds four tables behind the counts."""
    local = 1 if call.is_shared_rank and not call.elastic else call.local_experts
    if local is None:
        return None
    words = call.ep_world_size * local
    if call.product == "A3":
        words *= call.tp_ranks
    if call.path == HIERARCHY:
        if call.max_batch is None or call.topk is None:
            return None
        servers = call.ep_world_size // RANKS_PER_SERVER_IN_COUNTS
        words += 2 * call.max_batch * call.ep_world_size * call.topk * servers
    return words


def _expert_scales(call: Call) -> Finding:
    return shape_breach(call.expert_scales, "expert_scales", ("float32",), (call.batch, call.topk))


def _tp_send_counts(call: Call) -> Finding:
    if call.tp_world_size != 2:
        return None
    if call.tp_send_counts is None:
        return Breach("None", "int32 (2,), dispatch's tp_recv_counts")
    return shape_breach(call.tp_send_counts, "tp_send_counts", ("int32",), (2,))


def _expand_scales(call: Call) -> Finding:
    if call.product == "A3" and call.path != HIERARCHY:
        return None  # tolerated: callers always pass dispatch's output
    scales = call.expand_scales
    if scales is None:
        return Breach(
            "None", "float32 (A,), dispatch's expand_scales", message="is {value}, needed: {limit}"
        )
    if call.path != HIERARCHY and tuple(scales.shape) == (0,):
        return shape_breach(scales, "expand_scales", ("float32",), None)
    return shape_breach(scales, "expand_scales", ("float32",), (call.rows,), at_least=True)


COMBINE_RULES: tuple[Rule, ...] = (
    Rule(
        id="C-01",
        param="expand_x",
        statement="expand_x is 2-D, bfloat16 or float16.",
        source=f"{DOCS}; {TILING}",
        check=_expand_x,
        operators=COMBINE,
        safety=True,
        breaks={"expand_x": ("A", "H", "int32")},
        holds={"expand_x": ("A", "H", "float16")},
        note="The torch wrapper lets int32 pass; tiling then fails.",
    ),
    Rule(
        id="C-02",
        param="expand_x",
        statement="expand_x has at least max(tp_world_size, 1) * A rows.",
        source=f"{DOCS}; {TILING}",
        message="has {value} rows, needed: {limit}",
        check=_expand_x_rows,
        operators=COMBINE,
        safety=True,
        breaks={"expand_x": ("A-1", "H", "bfloat16")},
        holds={"expand_x": ("A", "H", "bfloat16")},
    ),
    Rule(
        id="C-03",
        param="assist_info_for_combine",
        statement=f"assist_info_for_combine is 1-D int32 of at least A * {ASSIST_WORDS_PER_ROW}.",
        source=f"{DOCS}; {TILING}",
        check=_assist_info,
        operators=COMBINE,
        safety=True,
        breaks={"assist_info_for_combine": ("A*128-1", "int32")},
        holds={"assist_info_for_combine": ("A*128", "int32")},
    ),
    Rule(
        id="C-04",
        param="ep_send_counts",
        statement=(
            "ep_send_counts is 1-D int32 of at least ep_world_size * local_expert_num (1 "
            "expert on a shared rank), times max(tp_world_size, 1) on A3, plus 2 * global_bs "
            "* K * (ep_world_size / 8) in hierarchy."
        ),
        source=f"{DOCS}; {TILING}; {WRAPPER}",
        check=_ep_send_counts,
        operators=COMBINE,
        safety=True,
        breaks={"ep_send_counts": ("counts-1", "int32")},
        holds={"ep_send_counts": ("counts", "int32")},
        note=(
            "A2 documents the long form always; the wrapper makes it only with expert_scales, "
            "so both are accepted."
        ),
    ),
    Rule(
        id="C-05",
        param="expert_scales",
        statement="expert_scales is float32 of shape (BS, K).",
        source=f"{DOCS}; {TILING}",
        check=_expert_scales,
        operators=COMBINE,
        safety=True,
        breaks={"expert_scales": ("BS", 9, "float32")},
        holds={"expert_scales": ("BS", "K", "float32")},
    ),
    Rule(
        id="C-07",
        param="tp_send_counts",
        statement=(
            "With tp_world_size = 2, tp_send_counts is dispatch's tp_recv_counts, int32 (2,). "
            "Ignored without TP."
        ),
        source=f"{SEED_DOC}; {TILING}",
        check=_tp_send_counts,
        operators=COMBINE,
        products=("A3",),
        contracts=(CANN_8_2,),
        safety=True,
        breaks={
            "tp_world_size": 2,
            "group_tp": "tp_group",
            "moe_expert_num": 16,
            "tp_send_counts": (3, "int32"),
        },
        holds={
            "tp_world_size": 2,
            "group_tp": "tp_group",
            "moe_expert_num": 16,
            "tp_send_counts": (2, "int32"),
        },
    ),
    Rule(
        id="C-08",
        param="expand_scales",
        statement=(
            "expand_scales is float32 of at least A on A2 and in hierarchy; ignored on A3 "
            "full mesh."
        ),
        source=f"{DOCS}; {TILING}",
        check=_expand_scales,
        operators=COMBINE,
        products=("A2", "A3"),
        breaks={"expand_scales": ("A-1", "float32")},
        excluding=({"product": "A3", "path": FULLMESH},),
        holds={"expand_scales": ("A", "float32")},
        note=(
            "A2 full mesh never reads it: the empty tensor that dispatch returns without "
            "expert_scales is accepted."
        ),
    ),
    Rule(
        id="C-17",
        param="activation_scale",
        statement="activation_scale, weight_scale and group_list are null.",
        source=ACLNN_DOC,
        operators=COMBINE,
        checked=DOCUMENTED,
        note="Arguments of the aclnn function only; the torch operators have no such keyword.",
    ),
    Rule(
        id="C-18",
        param="out_dtype",
        statement="out_dtype and group_list_type are 0.",
        source=ACLNN_DOC,
        operators=COMBINE,
        checked=DOCUMENTED,
        note="Arguments of the aclnn function only; the torch operators have no such keyword.",
    ),
    Rule(
        id="C-19",
        param="output",
        statement="The output is (BS, H), contiguous, in the dtype of expand_x.",
        source=f"{DOCS}; {TILING}",
        operators=COMBINE,
        checked=DOCUMENTED,
        note=(
            "The operator allocates this output itself, so a caller cannot break it; "
            "shapes.py computes it."
        ),
    ),
)
