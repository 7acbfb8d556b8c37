"""Calls that the rule table cannot read: arguments of other types, variables of other values, no memory.

They are refused as all others are: a ConstraintError here, the same reason on all ranks, and the group goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NoReturn

import torch
from torch import Tensor

from ascend_moe.contract.agreement import FIELDS, UNKNOWN
from ascend_moe.contract.errors import ConstraintError, PeerError, Violation, plain
from ascend_moe.contract.signature import PARAMETERS
from ascend_moe.cpu import transport
from ascend_moe.cpu.distributed.group import call_on, resolve

RULE: Final = "E-14"
_TYPES: Final[Mapping[str, Any]] = {"Tensor": Tensor, "str": str, "int": (int, torch.SymInt)}


def schema_violations(op: str, call: Mapping[str, Any]) -> list[Violation]:
    """Arguments that are not of the type in the operator's schema, and tensors that are not dense."""
    found = []
    for parameter in PARAMETERS[op]:
        value, name = call[parameter.name], parameter.name
        kind = parameter.type.removesuffix("?")
        if value is None and parameter.type.endswith("?"):
            continue
        if not isinstance(value, _TYPES[kind]):
            message = f"must be {kind}, not {type(value).__name__}"
            found.append(Violation(RULE, "error", name, message, type(value).__name__, kind))
        elif isinstance(value, Tensor) and value.layout is not torch.strided:
            message = f"must be a dense tensor, not {value.layout}"
            found.append(Violation(RULE, "error", name, message, str(value.layout), "dense"))
    return found


def refuse(op: str, call: Mapping[str, Any], error: Exception) -> NoReturn:
    """Tells the peers that this rank cannot make the call, and raises; error: what stopped it."""
    found = schema_violations(op, call) or [_violation(error)]
    name = call["group_ep"]
    group = resolve(name) if isinstance(name, str) else None
    if group is not None:
        line = transport.line(group, what=call_on(group, op), measured=False)
        with suppress(PeerError):  # what is wrong here counts more than who is gone
            numbers = dict.fromkeys(FIELDS, UNKNOWN) | {"ep_rank_id": group.rank()}
            line.refuse([*numbers.values()], str(found[0]))
    raise _refusal(op, found) from error


def refuse_types(op: str, call: Mapping[str, Any], error: Exception) -> None:
    """Raises what is wrong with the types of a call, if anything is: ``error`` only came of it. Peers are not told."""
    found = schema_violations(op, call)
    if found and not isinstance(error, ConstraintError):
        raise _refusal(op, found) from error


def _refusal(op: str, found: list[Violation]) -> ConstraintError:
    header = f"npu_moe_distribute_{op}_v2: {len(found)} error{'s' * (len(found) > 1)}"
    return ConstraintError(found, header)


def _violation(error: Exception) -> Violation:
    text = plain(error)
    variable = text.split()[0] if text.startswith("ASCEND_MOE_") else ""
    what = text if variable else f"the call could not be prepared: {type(error).__name__}: {text}"
    return Violation(RULE, "error", variable or "x", what, type(error).__name__, "a legal call")
