"""The checks of a call that a graph compiler traces.

A compiled graph runs the stock operator and no Python of ours, so what an eager call promises has to happen while the
graph is made. ``torch.compile`` traces our functions themselves; its *comptime* hook runs real code in the middle of
that and knows what the traced variables are. There the call is judged, and the ranks meet as before an eager call: the
meeting waits for peers in the rendezvous store, which is possible then and no longer when the graph runs or is
captured. ``torch.export`` runs our functions over fake tensors instead; it judges, and meets nobody: nothing is about
to run.

A size may be a symbol that stands for many sizes. Judged is the size of the call that is traced, the symbol's *hint*.
No decision is made on the symbol itself, so no guard comes of it: the graph serves other sizes later, unchecked. A size
without a hint depends on the contents of a tensor; such a call is left to torch, which cannot make the outputs of
dispatch.

CPU tensors are passed over: the kernel behind the operator checks them whenever the graph runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ascend_moe.contract.call import DescribedTensor, dtype_name
from ascend_moe.contract.check import on_cpu
from ascend_moe.contract.errors import ConstraintError, ConstraintWarning, PeerError
from ascend_moe.contract.signature import by_name
from ascend_moe.gate import require_legal
from ascend_moe.ranks import require_legal_on_all_ranks


def check_while_traced(op: str, tensors: Sequence[Any], attributes: Sequence[Any]) -> None:
    """Raises what the same call would raise eagerly; torch passes it on to the caller of the compiled function."""
    if torch.compiler.is_dynamo_compiling():
        from torch._dynamo.comptime import comptime

        run: Any = comptime
        run(_check_in_dynamo)
    else:
        call = by_name(op, tensors, attributes)
        if not on_cpu(call):
            with suppress(_NoHint):
                require_legal(op, _without_symbols(call))


def _check_in_dynamo(context: Any) -> None:
    """context: gives the local variables of the frame above, `check_while_traced`."""
    op, tensors, attributes = (
        context.get_local(name).as_proxy() for name in ("op", "tensors", "attributes")
    )
    traced = {name: _value(proxy) for name, proxy in by_name(op, tensors, attributes).items()}
    if on_cpu(traced):
        return
    try:
        call = _without_symbols(traced)
        if traced["expert_ids"].device.type == "npu":
            require_legal_on_all_ranks(op, call)
        else:
            require_legal(op, call)
    except _NoHint:
        return
    except _PASSED_ON as error:
        raise _passed_on(error) from None


def _value(proxy: Any) -> Any:
    """What a node of the graph stands for; constants have no node."""
    return proxy.node.meta["example_value"] if isinstance(proxy, torch.fx.Proxy) else proxy


class _NoHint(Exception):
    """A size is not known before the graph runs."""


def _without_symbols(call: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _described(value) if isinstance(value, Tensor) else _hint(value)
        for name, value in call.items()
    }


def _described(tensor: Tensor) -> DescribedTensor:
    shape, strides = (tuple(map(_hint, sizes)) for sizes in (tensor.shape, tensor.stride()))
    dense, contiguous = 1, True
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        contiguous = contiguous and (size == 1 or stride == dense)
        dense *= size
    return DescribedTensor(
        shape, dtype_name(tensor), contiguous or dense == 0, tensor.requires_grad
    )


def _hint(size: Any) -> Any:
    if not isinstance(size, torch.SymInt):
        return size
    if not size.node.has_hint():
        raise _NoHint
    return int(size.node.hint)


# What the checks and the meeting raise; the warning where the user made warnings errors.
_PASSED_ON = (ConstraintError, ConstraintWarning, PeerError, TypeError, ValueError)
_PACKAGE = str(Path(__file__).parent)


def _passed_on(error: Exception) -> Exception:
    """The same error, also of a kind that torch passes on; of others it makes an InternalTorchDynamoError."""
    from torch._dynamo.exc import TorchRuntimeError

    kind = type(error)
    both = type(
        kind.__name__,
        (kind, TorchRuntimeError),
        {"__module__": kind.__module__, "__reduce__": lambda _: error.__reduce__()},
    )
    told: Any = both.__new__(both, *error.args)
    stack = torch._guards.TracingContext.extract_stack()
    vars(told).update(
        vars(error),
        frame_exec_strategy=None,  # as TorchDynamoException's own __init__
        real_stack=[frame for frame in stack if not frame.filename.startswith(_PACKAGE)],
    )
    found: Exception = told
    return found
