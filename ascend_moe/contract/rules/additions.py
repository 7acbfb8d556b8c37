"""C-xx, what combine adds and how rows travel: shared_expert_x, special experts, comm_quant_mode."""

from __future__ import annotations

from ascend_moe.contract import limits as lim
from ascend_moe.contract.call import Call, TensorLike, dtype_name
from ascend_moe.contract.limits import FULLMESH
from ascend_moe.contract.rules.rule import (
    COMBINE,
    CURRENT_DOC,
    DOCS,
    DOCUMENTED,
    KERNEL,
    SEED_DOC,
    TILING,
    Breach,
    Finding,
    Rule,
    shape_breach,
)
from ascend_moe.contract.signature import CANN_8_2


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


ADDITION_RULES: tuple[Rule, ...] = (
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
)
