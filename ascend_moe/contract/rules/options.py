"""X-xx, the rest: algorithm, performance_info, layout and the HCCL buffer."""

from __future__ import annotations

from ascend_moe.contract.call import Call
from ascend_moe.contract.limits import MESHES
from ascend_moe.contract.rules.buffer import window_breach
from ascend_moe.contract.rules.rule import (
    CURRENT_DOC,
    DOCS,
    TILING,
    VALUES,
    Breach,
    Finding,
    Rule,
    shape_breach,
)
from ascend_moe.contract.rules.values import storage_format


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


def _performance_info(call: Call) -> Finding:
    info = call.performance_info
    if info is None:
        return None
    if not call.path_limits.performance_info:
        where = f"{call.product} {call.path} under {call.contract}"
        return Breach("a tensor", "None", message=f"is {{value}}; {where} takes {{limit}} only")
    return shape_breach(info, "performance_info", ("int64",), (call.ep_world_size,))


def _scales_contiguous(call: Call) -> Finding:
    is_contiguous = getattr(call.scales, "is_contiguous", None)
    if is_contiguous is not None and not is_contiguous():
        return Breach(
            "not contiguous", "contiguous", message="is {value}; the documents ask for {limit}"
        )
    return None


OPTION_RULES: tuple[Rule, ...] = (
    Rule(
        id="X-29",
        param="comm_alg",
        statement=(
            'comm_alg: none under cann-8.2; "", "fullmesh" or "hierarchy" on A2; "", '
            '"fullmesh_v1", "fullmesh_v2" or "hierarchy" for dispatch on A3; "" or '
            '"hierarchy" for combine on A3.'
        ),
        source=f"{CURRENT_DOC}; {TILING}",
        message="is {value}, allowed: {limit}",
        check=_comm_algorithm,
        safety=True,
        breaks={"comm_alg": "ccu"},
        holds={"comm_alg": ""},
        note=(
            '"0" is what old wrappers send on A2 and counts as "". A3 combine ignores the '
            "names of dispatch: a warning, because callers pass one dict to both."
        ),
    ),
    Rule(
        id="X-31",
        param="performance_info",
        statement=(
            "performance_info is None or int64 (ep_world_size,); None under cann-8.2 and in "
            "A3 hierarchy."
        ),
        source=f"{CURRENT_DOC}; {TILING}",
        check=_performance_info,
        safety=True,
        breaks={"performance_info": (17, "int64")},
        holds={"performance_info": None},
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
        statement=(
            "The HCCL buffer of the EP group holds both windows: docs/buffer-size.md. An "
            "error on A3, a warning on A2."
        ),
        source=f"{DOCS}; {TILING}",
        message="is {value} MB, needed: {limit} MB",
        check=window_breach,
        breaks={"BS": 256, "H": 7168, "moe_expert_num": 128, "env": {"HCCL_BUFFSIZE": "200"}},
        holds={"BS": 256, "H": 7168, "moe_expert_num": 128, "env": {"HCCL_BUFFSIZE": "4000"}},
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
)
