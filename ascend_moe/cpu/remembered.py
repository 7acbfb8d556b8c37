"""Calls that were found legal once, by all that the rules read except tensor contents.

A decode step makes the same two calls for every layer. The first one of a kind is checked by the rule table; if it
takes its own steps in shared memory, it is prepared (`windows.calls`) and remembered with its group, and those steps
check the contents of the next ones. A repeated call costs one look-up.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Final

from ascend_moe.contract.call import TENSOR_NAMES
from ascend_moe.contract.signature import PARAMETERS
from ascend_moe.cpu.eager import are_plain, keys_of
from ascend_moe.cpu.group import resolve
from ascend_moe.cpu.peers import state_of
from ascend_moe.cpu.windows.calls import FastCall
from ascend_moe.cpu.windows.group import NoWindow
from ascend_moe.gate import REMEMBERED_MAX, RULE_VARIABLES, values_of
from ascend_moe.patience import TIMEOUT_VARIABLE

_attributes: Final = {
    op: itemgetter(*(p.name for p in table if not p.is_tensor)) for op, table in PARAMETERS.items()
}
_tensors: Final = {op: itemgetter(*names) for op, names in TENSOR_NAMES.items()}
_VARIABLES: Final = tuple(name.encode() for name in (*RULE_VARIABLES, TIMEOUT_VARIABLE))


def again(op: str, call: Mapping[str, Any]) -> Any:
    """The results of a call of a kind that is remembered; None when it is not, or turns out to be illegal."""
    group = resolve(call["group_ep"])
    if group is None:
        return None
    state = state_of(group)
    if not state.calls:
        return None
    known: FastCall | None = state.calls.get(_kind(op, call))
    if known is None:
        return None
    try:
        return known.run(call)
    except NoWindow:
        return None


def remember(op: str, call: Mapping[str, Any], prepared: FastCall) -> None:
    """The next call of this kind is made by ``prepared``."""
    group = resolve(call["group_ep"])
    if group is None or state_of(group).windows is not prepared.windows:
        return
    if not are_plain(call.values()):
        return  # `again` is asked before anybody looks at the tensors
    calls = state_of(group).calls
    if len(calls) >= REMEMBERED_MAX:
        calls.clear()
    calls[_kind(op, call)] = prepared


def _kind(op: str, call: Mapping[str, Any]) -> tuple[object, ...]:
    parts: list[object] = [op, _attributes[op](call)]
    for tensor in _tensors[op](call):
        if tensor is None:
            parts.append(None)
        else:
            parts += (
                type(tensor),
                tensor.shape,
                tensor.dtype,
                tensor.requires_grad,
                tensor.is_contiguous(),
                keys_of(tensor),
            )
    parts += values_of(_VARIABLES)
    return tuple(parts)
