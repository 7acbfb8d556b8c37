"""D-xx, the other inputs of dispatch, and its outputs."""

from __future__ import annotations

from ascend_moe.contract import limits as lim
from ascend_moe.contract.call import Call
from ascend_moe.contract.limits import FULLMESH
from ascend_moe.contract.rules.rule import (
    CURRENT_DOC,
    DISPATCH,
    DOCS,
    DOCUMENTED,
    TILING,
    WRAPPER,
    Breach,
    Finding,
    Rule,
    shape_breach,
)
from ascend_moe.contract.signature import CANN_9_1


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
