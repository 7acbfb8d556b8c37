"""What stops a call on the CPU executor and in the reference, besides the rules of its contract.

Every documented mode runs there. What the rules tolerate because the kernels ignore it, but the executor would compute
from, and what must hold even with the rule table switched off, is checked here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ascend_moe.contract.buffsize import CPU
from ascend_moe.contract.call import Call, dtype_name
from ascend_moe.contract.check import violations
from ascend_moe.contract.errors import Violation
from ascend_moe.contract.limits import BETWEEN, HIERARCHY
from ascend_moe.contract.signature import CANN_9_1
from ascend_moe.contract.window import VARIABLE as WINDOW_VARIABLE

CHECK_VARIABLE = "ASCEND_MOE_CHECK"
CHECK_LEVELS = ("full", "fast", "off")


def check_level() -> str:
    """``ASCEND_MOE_CHECK`` on CPU: full unless set. Raises ValueError for an unknown level."""
    level = os.environ.get(CHECK_VARIABLE) or "full"
    if level not in CHECK_LEVELS:
        raise ValueError(f"{CHECK_VARIABLE} is {level!a}, allowed: {', '.join(CHECK_LEVELS)}")
    return level


def executor_violations(
    op: str, call: Mapping[str, object], *, product: str, contract: str, safety: bool
) -> list[Violation]:
    """Everything that stops (level "error") or accompanies (level "warning") a call on CPU tensors.

    safety: leave out the rules without which the call still computes what it says (sizes of the hardware).
    There is no HCCL window on a CPU to overflow. So the window rules X-39 and E-01 stop a call only where
    HCCL_BUFFSIZE says which window the deployment has; without it, the default that an NPU would use is a warning.
    """
    found = violations(
        op,
        call,
        product=product,
        contract=contract,
        values=True,
        safety=safety,
        implementation=CPU,
    )
    found = [_window_as_warning(violation) for violation in found]
    experts = call["moe_expert_num"]
    if safety and isinstance(experts, int) and experts < 1:
        found.append(
            Violation("X-09", "error", "moe_expert_num", f"is {experts}, needed: >= 1", experts, 1)
        )
    known = CANN_9_1 if contract == BETWEEN else contract
    broken = {violation.rule for violation in found}
    return found + [
        violation
        for violation in _needed_here(Call(op, call, product=product, contract=known))
        if violation.rule not in broken
    ]


def _window_as_warning(violation: Violation) -> Violation:
    if violation.rule not in ("X-39", "E-01") or WINDOW_VARIABLE in os.environ:
        return violation
    return Violation(
        violation.rule,
        "warning",
        violation.param,
        violation.message,
        violation.value,
        violation.limit,
    )


def _needed_here(call: Call) -> list[Violation]:
    """Tolerated on hardware, where the kernels ignore it; the executor would read it."""
    found = []
    if call.path == HIERARCHY:
        found += _hierarchy(call)
    weights = call.expert_scales
    if call.op == "dispatch" and weights is not None:
        shape, wanted = tuple(weights.shape), (call.batch, call.topk)
        if shape != wanted or dtype_name(weights) != "float32":
            message = f"is {dtype_name(weights)} {shape}, needed: float32 {wanted}"
            found.append(Violation("D-09", "error", "expert_scales", message, shape, wanted))
    return found


def _hierarchy(call: Call) -> list[Violation]:
    """What hierarchy cannot do even with the rule table switched off."""
    found = []
    ep, server = call.ep_world_size, call.path_limits.ranks_per_server
    if ep % server:
        rule = "X-05" if call.product == "A2" else "X-06"
        message = f"is {ep}; hierarchy needs whole servers of {server} ranks"
        found.append(Violation(rule, "error", "ep_world_size", message, ep, server))
    if call.op == "dispatch" and call.scales is not None:
        message = "is a tensor; hierarchy quantises a token once for all its experts: pass None"
        found.append(Violation("D-08", "error", "scales", message, "a tensor", None))
    return found
