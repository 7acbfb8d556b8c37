"""Which legal calls the CPU executor and the reference can run, and what stops the others.

The rules say what the operators promise; this page says what is built. A mode that is legal but not here is refused
by name, never computed as another mode.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ascend_moe.contract.call import Call, dtype_name
from ascend_moe.contract.check import violations
from ascend_moe.contract.errors import Violation
from ascend_moe.contract.limits import BETWEEN, HIERARCHY
from ascend_moe.contract.signature import CANN_9_1

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
    The window rules X-39 and E-01 become warnings: there is no HCCL window on a CPU to overflow, but the same call
    would fail on an NPU.
    """
    found = violations(op, call, product=product, contract=contract, values=True, safety=safety)
    found = [_window_as_warning(violation) for violation in found]
    known = CANN_9_1 if contract == BETWEEN else contract
    return found + _not_built(Call(op, call, product=product, contract=known))


def _window_as_warning(violation: Violation) -> Violation:
    if violation.rule not in ("X-39", "E-01"):
        return violation
    return Violation(
        violation.rule,
        "warning",
        violation.param,
        violation.message,
        violation.value,
        violation.limit,
    )


def _not_built(call: Call) -> list[Violation]:
    found = []
    if call.path == HIERARCHY:
        message = f"the hierarchy path of {call.product} is not in this release; use full mesh"
        found.append(Violation("X-29", "error", "comm_alg", message, call.comm_alg, "full mesh"))
    if call.performance_info is not None:
        message = "performance_info is not in this release; pass None"
        found.append(Violation("X-31", "error", "performance_info", message, "a tensor", None))
    if call.op == "dispatch" and dtype_name(call.tokens) == "int32":
        message = "int32 x (packed int4) is not in this release; pass bfloat16 or float16"
        found.append(Violation("D-14", "error", "x", message, "int32", "bfloat16 or float16"))
    return found
