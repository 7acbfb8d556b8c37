"""D-xx, the two scales of dispatch: smooth scales of quantisation and the weights of hierarchy."""

from __future__ import annotations

from ascend_moe.contract.call import Call, TensorLike, dtype_name
from ascend_moe.contract.limits import HIERARCHY
from ascend_moe.contract.rules.rule import (
    ACLNN_DOC,
    DISPATCH,
    DOCS,
    DOCUMENTED,
    KERNEL,
    TILING,
    Breach,
    Finding,
    Rule,
    shape_breach,
)
from ascend_moe.contract.signature import CANN_8_2, CANN_9_1


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


SCALE_RULES: tuple[Rule, ...] = (
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
)
