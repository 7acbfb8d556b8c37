"""D-xx: rules of dispatch."""

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
    TILING,
    WRAPPER,
    Breach,
    Finding,
    Rule,
    shape_breach,
)
from ascend_moe.contract.signature import CANN_8_2, CANN_9_1


def _x_rank(call: Call) -> Finding:
    shape = call.tokens.shape
    if len(shape) != 2:
        return Breach(tuple(shape), "2-D (BS, H)")
    return None


def _x_dtype(call: Call) -> Finding:
    allowed = ("bfloat16", "float16")
    if call.packed and call.contract == CANN_9_1 and call.product == "A2":
        return None  # D-14
    return shape_breach(call.tokens, "x", allowed, None)


def _ids_match_x(call: Call) -> Finding:
    ids = call.expert_ids.shape
    if call.batch is not None and len(ids) == 2 and ids[0] != call.batch:
        return Breach(ids[0], f"{call.batch}, the rows of x")
    return None


def _scales_need_quant(call: Call) -> Finding:
    if call.scales is not None and call.quant_mode == 0 and not call.packed:
        return Breach("a tensor", "None with quant_mode = 0")
    return None


def _scales_dtype(call: Call) -> Finding:
    scales = _smooth_scales(call)
    if scales is None:
        return None
    found = shape_breach(scales, "scales", ("float32",), None)
    if found is None and len(scales.shape) != 2:
        return Breach(
            tuple(scales.shape), "2-D (experts, H)", message="shape is {value}, needed: {limit}"
        )
    return found


def _scales_shape(call: Call) -> Finding:
    scales = _smooth_scales(call)
    if scales is None or len(scales.shape) != 2:
        return None
    rows = call.shared_experts + call.moe_expert_num
    any_dtype = (dtype_name(scales),)  # D-05 judges it
    return shape_breach(scales, "scales", any_dtype, (rows, call.hidden))


def _smooth_scales(call: Call) -> TensorLike | None:
    """Scales where their shape matters: D-04, D-08 and D-14 speak about the other cases."""
    if call.quant_mode == 0 or call.packed or (call.product == "A2" and call.path == HIERARCHY):
        return None
    return call.scales


def _no_scales_in_hierarchy(call: Call) -> Finding:
    if call.scales is None or call.quant_mode == 0:
        return None
    level = "error" if call.product == "A2" else "warning"
    return Breach("a tensor", "None in hierarchy, whose kernel ignores it", level=level)


def _expert_scales_shape(call: Call) -> Finding:
    if call.product == "A3" and call.contract != CANN_9_1:
        return None  # D-11: ignored there
    return shape_breach(call.expert_scales, "expert_scales", ("float32",), (call.batch, call.topk))


def _expert_scales_required(call: Call) -> Finding:
    if call.expert_scales is None:
        return Breach("None", "a float32 tensor (BS, K)")
    return None


def _quant_mode(call: Call) -> Finding:
    if call.quant_mode not in lim.QUANT_MODES:
        return Breach(call.quant_mode, "0 or 2")
    return None


def _token_nums_type(call: Call) -> Finding:
    if call.expert_token_nums_type not in lim.EXPERT_TOKEN_NUMS_TYPES:
        return Breach(call.expert_token_nums_type, "0 or 1")
    return None


def _packed_x(call: Call) -> Finding:
    if not call.packed:
        return None
    if not call.path_limits.packed_x:
        return Breach(
            "int32", "bfloat16 or float16 in hierarchy", "x", "dtype is {value}, allowed: {limit}"
        )
    found: list[Breach] = []
    if call.quant_mode != 0:
        found.append(Breach(call.quant_mode, "0 with int32 x", "quant_mode"))
    hidden = call.hidden
    if hidden is not None and not (
        0 < hidden <= lim.PACKED_HIDDEN_MAX and hidden % lim.PACKED_HIDDEN_MULTIPLE == 0
    ):
        limit = f"a multiple of {lim.PACKED_HIDDEN_MULTIPLE} up to {lim.PACKED_HIDDEN_MAX} words"
        found.append(Breach(hidden, limit, "x", "H is {value}, allowed: {limit}"))
    if call.scales is None:
        found.append(Breach("None", "float32 (BS,) with int32 x", "scales"))
    else:
        shape = shape_breach(call.scales, "scales", ("float32",), (call.batch,))
        found += shape if isinstance(shape, list) else []
    return found or None


def _ascend950_only(call: Call) -> Finding:
    found = [
        Breach(getattr(call, name), "None", name)
        for name in ("y_dtype", "x_dtype", "scales_dtype")
        if getattr(call, name) is not None
    ]
    return found or None


DISPATCH = ("dispatch",)
OUTPUT_NOTE = (
    "The operator allocates this output itself, so a caller cannot break it; shapes.py computes it."
)


def _output(rule_id: str, param: str, statement: str, source: str = TILING) -> Rule:
    return Rule(
        id=rule_id,
        param=param,
        statement=statement,
        source=source,
        operators=DISPATCH,
        checked=DOCUMENTED,
        note=OUTPUT_NOTE,
    )


DISPATCH_RULES: tuple[Rule, ...] = (
    Rule(
        id="D-01",
        param="x",
        statement="x is 2-D (BS, H).",
        source=f"{DOCS}; {WRAPPER}",
        message="shape is {value}, needed: {limit}",
        check=_x_rank,
        operators=DISPATCH,
        safety=True,
        breaks={"x": ("BS", "H", 1, "bfloat16")},
        holds={"x": ("BS", "H", "bfloat16")},
    ),
    Rule(
        id="D-02",
        param="x",
        statement="x is bfloat16 or float16 (int32 on A2 full mesh under cann-9.1: D-14).",
        source=f"{DOCS}; {TILING}",
        check=_x_dtype,
        operators=DISPATCH,
        safety=True,
        breaks={"x": ("BS", "H", "float32")},
        holds={"x": ("BS", "H", "float16")},
    ),
    Rule(
        id="D-03",
        param="expert_ids",
        statement="expert_ids has one row per token of x.",
        source=f"{DOCS}; {TILING}",
        message="has {value} rows, needed: {limit}",
        check=_ids_match_x,
        operators=DISPATCH,
        safety=True,
        breaks={"expert_ids": (7, "K", "int32")},
        holds={"expert_ids": ("BS", "K", "int32")},
    ),
    Rule(
        id="D-04",
        param="scales",
        statement=(
            "scales is None with quant_mode = 0 (int32 x: D-14) and optional with quant_mode = 2."
        ),
        source=f"{DOCS}; {TILING}",
        message="is {value}, needed: {limit}",
        check=_scales_need_quant,
        operators=DISPATCH,
        safety=True,
        breaks={"scales": ("moe", "H", "float32")},
        holds={"scales": None},
    ),
    Rule(
        id="D-05",
        param="scales",
        statement="scales is 2-D float32.",
        source=f"{DOCS}; {TILING}",
        check=_scales_dtype,
        operators=DISPATCH,
        safety=True,
        breaks={"quant_mode": 2, "scales": ("moe", "H", "float16")},
        excluding=({"path": HIERARCHY},),
        holds={"quant_mode": 2, "scales": ("moe", "H", "float32")},
    ),
    Rule(
        id="D-06",
        param="scales",
        statement=(
            "scales has shape (SN + moe_expert_num, H), shared experts first; SN is 0 without "
            "shared experts and on A2."
        ),
        source=f"{DOCS}; {TILING}",
        check=_scales_shape,
        operators=DISPATCH,
        safety=True,
        breaks={"quant_mode": 2, "scales": ("moe+1", "H", "float32")},
        excluding=({"path": HIERARCHY},),
        holds={"quant_mode": 2, "scales": ("moe", "H", "float32")},
    ),
    Rule(
        id="D-07",
        param="scales",
        statement="scales is contiguous.",
        source=DOCS,
        operators=DISPATCH,
        checked=DOCUMENTED,
        note="The same rule as X-44, which checks it.",
    ),
    Rule(
        id="D-08",
        param="scales",
        statement="Hierarchy: scales is None. A3 takes it and ignores it: a warning.",
        source=f"{ACLNN_DOC}; {KERNEL}",
        message="is {value}, needed: {limit}",
        check=_no_scales_in_hierarchy,
        operators=DISPATCH,
        paths=(HIERARCHY,),
        breaks={"quant_mode": 2, "scales": ("moe", "H", "float32")},
        holds={"quant_mode": 2, "scales": None},
    ),
    Rule(
        id="D-09",
        param="expert_scales",
        statement="expert_scales, where it is used, is float32 of shape (BS, K).",
        source=f"{DOCS}; {TILING}",
        check=_expert_scales_shape,
        operators=DISPATCH,
        safety=True,
        breaks={"expert_scales": ("BS", 9, "float32")},
        excluding=({"product": "A3", "contract": CANN_8_2},),
        holds={"expert_scales": ("BS", "K", "float32")},
        note="Ignored on A3 under cann-8.2 (D-11).",
    ),
    Rule(
        id="D-10",
        param="expert_scales",
        statement="Hierarchy requires expert_scales.",
        source=f"{ACLNN_DOC}; {TILING}",
        message="is {value}, needed: {limit}",
        check=_expert_scales_required,
        operators=DISPATCH,
        paths=(HIERARCHY,),
        safety=True,
        breaks={"expert_scales": None},
        holds={"expert_scales": ("BS", "K", "float32")},
    ),
    Rule(
        id="D-11",
        param="expert_scales",
        statement="A3 full mesh takes no expert_scales.",
        source=DOCS,
        operators=DISPATCH,
        products=("A3",),
        checked=DOCUMENTED,
        note="Tolerated and ignored: real callers always pass it.",
    ),
    Rule(
        id="D-12",
        param="quant_mode",
        statement="quant_mode is 0 (none) or 2 (dynamic, int8).",
        source=f"{DOCS}; {TILING}",
        check=_quant_mode,
        operators=DISPATCH,
        safety=True,
        breaks={"quant_mode": 3},
        holds={"quant_mode": 2},
    ),
    Rule(
        id="D-13",
        param="expert_token_nums_type",
        statement="expert_token_nums_type is 0 (running total) or 1 (count per expert).",
        source=f"{DOCS}; {TILING}; {WRAPPER}",
        check=_token_nums_type,
        operators=DISPATCH,
        safety=True,
        breaks={"expert_token_nums_type": 2},
        holds={"expert_token_nums_type": 0},
    ),
    Rule(
        id="D-14",
        param="x",
        statement=(
            "int32 x (eight int4 in a word) needs A2 full mesh, quant_mode = 0, scales "
            f"float32 (BS,), and H in words a multiple of {lim.PACKED_HIDDEN_MULTIPLE} up to "
            f"{lim.PACKED_HIDDEN_MAX}."
        ),
        source=CURRENT_DOC,
        check=_packed_x,
        operators=DISPATCH,
        products=("A2",),
        contracts=(CANN_9_1,),
        safety=True,
        breaks={"x": ("BS", "H", "int32"), "scales": ("BS", "float32"), "quant_mode": 2},
        only={"path": (FULLMESH,)},
        holds={"x": ("BS", "H", "int32"), "scales": ("BS", "float32"), "quant_mode": 0},
    ),
    _output(
        "D-15",
        "expand_x",
        "Output expand_x is (A * max(tp, 1), H), int8 with quant_mode = 2, else as x.",
    ),
    _output(
        "D-16", "dynamic_scales", "Output dynamic_scales is 1-D float32 of at least A * max(tp, 1)."
    ),
    _output(
        "D-17", "assist_info_for_combine", "Output assist_info_for_combine is 1-D int32 of 128 * A."
    ),
    _output(
        "D-18",
        "expert_token_nums",
        "Output expert_token_nums is int64 (local_expert_num,); one entry on a shared rank.",
    ),
    _output(
        "D-19",
        "ep_recv_counts",
        "Output ep_recv_counts is 1-D int32, ep * local_expert_num * max(tp, 1), longer in hierarchy.",
    ),
    _output("D-20", "tp_recv_counts", "Output tp_recv_counts is 1-D int32 (tp,)."),
    _output(
        "D-21",
        "expand_scales",
        "Output expand_scales is 1-D float32 (A,) when expert_scales is given.",
    ),
    Rule(
        id="D-22",
        param="y_dtype",
        statement="y_dtype, x_dtype and scales_dtype are None: they belong to Ascend950.",
        source="op-plugin, op_plugin/config/op_plugin_functions.yaml",
        message="is {value}; only Ascend950 has it, pass {limit}",
        check=_ascend950_only,
        operators=DISPATCH,
        safety=True,
        breaks={"y_dtype": 1},
        holds={"y_dtype": None},
        note="In the schema of later torch_npu releases, not in the documents.",
    ),
)
