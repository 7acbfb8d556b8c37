"""C-xx: rules of combine. Buffers sized by A or counts may be larger, other shapes are exact."""

from __future__ import annotations

from ascend_moe.contract import limits as lim
from ascend_moe.contract.call import Call, TensorLike, dtype_name
from ascend_moe.contract.limits import FULLMESH, HIERARCHY
from ascend_moe.contract.rules.rule import (
    ACLNN_DOC,
    CURRENT_DOC,
    DOCS,
    DOCUMENTED,
    KERNEL,
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
    local = 1 if call.is_shared_rank else call.local_experts
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


def _shared_expert_x_allowed(call: Call) -> Finding:
    if call.shared_expert_x is None:
        return None
    if call.product == "A2":
        return Breach("a tensor", "None on A2")
    if call.shared_expert_rank_num != 0:
        return Breach(
            "a tensor", f"None with shared_expert_rank_num = {call.shared_expert_rank_num}"
        )
    return None


def _shared_expert_x_shape(call: Call) -> Finding:
    tensor = call.shared_expert_x
    if tensor is None or call.batch is None or call.hidden is None:
        return None
    shape = tuple(tensor.shape)
    if shape == (call.batch, call.hidden):
        return None
    if len(shape) == 3 and shape[0] * shape[1] == call.batch and shape[2] == call.hidden:
        return None
    return Breach(shape, f"({call.batch}, {call.hidden}), or 3-D with d0 * d1 = {call.batch}")


def _shared_expert_x_dtype(call: Call) -> Finding:
    return _same_dtype(call, call.shared_expert_x, "shared_expert_x")


def _same_dtype(call: Call, tensor: TensorLike | None, param: str) -> Finding:
    if tensor is None:
        return None
    have, want = dtype_name(tensor), dtype_name(call.tokens)
    if have != want and want in ("bfloat16", "float16"):
        return Breach(have, f"{want}, as expand_x", param, "dtype is {value}, needed: {limit}")
    return None


def _comm_quant_mode(call: Call) -> Finding:
    if call.comm_quant_mode not in lim.COMM_QUANT_MODES:
        return Breach(call.comm_quant_mode, "0 or 2")
    return None


def _comm_quant_without_tp(call: Call) -> Finding:
    if call.comm_quant_mode == 2 and call.tp_world_size == 2:
        return Breach(2, "0 with tp_world_size = 2")
    return None


def _comm_quant_path(call: Call) -> Finding:
    mode = call.comm_quant_mode
    if mode in lim.COMM_QUANT_MODES and mode not in call.path_limits.comm_quant_modes:
        return Breach(mode, f"0 in {call.path}; 2 needs hierarchy")
    return None


def _ori_x(call: Call) -> Finding:
    tensor = call.ori_x
    if call.contract == CANN_8_2:
        return None if tensor is None else Breach("a tensor", "None under cann-8.2")
    kinds = call.path_limits.special_experts
    needs = any(
        kind in kinds and getattr(call, f"{kind}_expert_num") > 0 for kind in ("copy", "const")
    )
    if tensor is None:
        return Breach("None", "(BS, H), because copy or const experts exist") if needs else None
    found = shape_breach(tensor, "ori_x", (dtype_name(tensor),), (call.batch, call.hidden))
    return found or _same_dtype(call, tensor, "ori_x")


CONST_TENSORS = ("const_expert_alpha_1", "const_expert_alpha_2", "const_expert_v")


def _const_tensors(call: Call) -> Finding:
    found: list[Breach] = []
    takes_const = "const" in call.path_limits.special_experts
    for param in CONST_TENSORS:
        tensor: TensorLike | None = getattr(call, param)
        if not takes_const:
            if tensor is not None:
                found.append(
                    Breach("a tensor", f"None on {call.product} under {call.contract}", param)
                )
        elif tensor is None:
            if call.const_expert_num > 0:
                found.append(Breach("None", f"({call.const_expert_num}, H)", param))
        else:
            shape = (call.const_expert_num, call.hidden)
            finding = shape_breach(tensor, param, (dtype_name(tensor),), shape)
            finding = finding or _same_dtype(call, tensor, param)
            found += finding if isinstance(finding, list) else [finding] if finding else []
    return found or None


COMBINE = ("combine",)

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
        id="C-06",
        param="shared_expert_x",
        statement="Shared experts are added without weight.",
        source=KERNEL,
        operators=COMBINE,
        checked=DOCUMENTED,
        note="A promise about the result, not a condition on the call.",
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
        id="C-09",
        param="shared_expert_x",
        statement="shared_expert_x needs A3 and shared_expert_rank_num = 0.",
        source=f"{SEED_DOC}; {TILING}",
        message="is {value}, needed: {limit}",
        check=_shared_expert_x_allowed,
        operators=COMBINE,
        safety=True,
        breaks={
            "shared_expert_num": 1,
            "shared_expert_rank_num": 2,
            "moe_expert_num": 28,
            "shared_expert_x": ("BS", "H", "bfloat16"),
        },
        only={"product": ("A3",), "path": (FULLMESH,)},
        holds={"shared_expert_x": None},
        note="The text of cann-9.1 says 'not 0'; the seed text and every implementation say 0.",
    ),
    Rule(
        id="C-10",
        param="shared_expert_x",
        statement="shared_expert_x has shape (BS, H), or 3-D with d0 * d1 = BS and d2 = H.",
        source=f"{DOCS}; {TILING}",
        message="shape is {value}, needed: {limit}",
        check=_shared_expert_x_shape,
        operators=COMBINE,
        products=("A3",),
        safety=True,
        breaks={"shared_expert_x": ("BS", 512, "bfloat16")},
        holds={"shared_expert_x": (2, 4, "H", "bfloat16")},
    ),
    Rule(
        id="C-11",
        param="shared_expert_x",
        statement="shared_expert_x has the dtype of expand_x.",
        source=f"{DOCS}; {TILING}",
        check=_shared_expert_x_dtype,
        operators=COMBINE,
        products=("A3",),
        safety=True,
        breaks={"shared_expert_x": ("BS", "H", "float16")},
        holds={"shared_expert_x": ("BS", "H", "bfloat16")},
    ),
    Rule(
        id="C-12",
        param="comm_quant_mode",
        statement="comm_quant_mode is 0 (none) or 2 (int8 while travelling).",
        source=f"{DOCS}; {TILING}",
        check=_comm_quant_mode,
        operators=COMBINE,
        safety=True,
        breaks={"comm_quant_mode": 1},
        holds={"comm_quant_mode": 0},
    ),
    Rule(
        id="C-13",
        param="comm_quant_mode",
        statement="comm_quant_mode = 2 needs tp_world_size != 2.",
        source=f"{SEED_DOC}; {TILING}",
        check=_comm_quant_without_tp,
        operators=COMBINE,
        products=("A3",),
        contracts=(CANN_8_2,),
        safety=True,
        breaks={
            "tp_world_size": 2,
            "group_tp": "tp_group",
            "moe_expert_num": 16,
            "tp_send_counts": (2, "int32"),
            "comm_quant_mode": 2,
        },
        holds={
            "tp_world_size": 2,
            "group_tp": "tp_group",
            "moe_expert_num": 16,
            "tp_send_counts": (2, "int32"),
        },
    ),
    Rule(
        id="C-14",
        param="comm_quant_mode",
        statement=(
            "On A2 comm_quant_mode = 2 needs hierarchy (and driver 25.0.RC1.1 or later: E-04)."
        ),
        source=f"{DOCS}; {TILING}",
        check=_comm_quant_path,
        operators=COMBINE,
        products=("A2",),
        safety=True,
        breaks={"comm_quant_mode": 2},
        only={"path": (FULLMESH,)},
        holds={"comm_quant_mode": 0},
    ),
    Rule(
        id="C-15",
        param="ori_x",
        statement=(
            "ori_x has shape (BS, H) and the dtype of expand_x; required with copy or const "
            "experts; None under cann-8.2."
        ),
        source=f"{CURRENT_DOC}; {TILING}",
        message="is {value}, needed: {limit}",
        check=_ori_x,
        operators=COMBINE,
        safety=True,
        breaks={"ori_x": (7, "H", "bfloat16")},
        holds={"ori_x": None},
    ),
    Rule(
        id="C-16",
        param="const_expert_v",
        statement=(
            "const_expert_alpha_1, const_expert_alpha_2 and const_expert_v have shape "
            "(const_expert_num, H) and the dtype of expand_x; required with const experts; "
            "None on A2, in hierarchy and under cann-8.2."
        ),
        source=f"{CURRENT_DOC}; {TILING}",
        message="is {value}, needed: {limit}",
        check=_const_tensors,
        operators=COMBINE,
        safety=True,
        breaks={"const_expert_v": (1, 7, "bfloat16")},
        holds={"const_expert_v": None},
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
