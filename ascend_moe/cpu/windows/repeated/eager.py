"""Whether a call may go to the CPU kernel directly: when nothing in the dispatcher would do anything on the way.

The dispatcher hands CPU tensors to the kernel after it has converted all arguments twice, which takes longer than a
small call itself. Whoever listens there (FakeTensor and other modes, tensor subclasses, functorch, a profiler, a
tracer) must still see the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

_C: Any = torch._C
_keys: Any = getattr(_C, "_dispatch_keys", None)
_modes: Any = getattr(_C, "_len_torch_dispatch_stack", None)
_function_modes: Any = getattr(_C, "_len_torch_function_stack", None)
_tracing: Any = getattr(_C, "_get_tracing_state", None)
_profiling: Any = getattr(torch.autograd, "_profiler_enabled", None)
_guards: Any = getattr(getattr(getattr(_C, "_dynamo", None), "guards", None), "TensorGuards", None)


def _plain_keys() -> frozenset[int]:
    """Dispatch keys of a tensor that is only memory on the CPU, made outside and inside of inference mode."""
    made = [torch.empty(0)]
    with torch.inference_mode():
        made.append(torch.empty(0))
    return frozenset(_keys(one).raw_repr() for one in made)


_known: Final = None not in (_keys, _modes, _function_modes, _tracing, _profiling)
_PLAIN: Final = _plain_keys() if _known and hasattr(_keys(torch.empty(0)), "raw_repr") else None


def nobody_listens() -> bool:
    """Whether no mode, tracer or profiler is active that must see the call in the dispatcher."""
    return not (
        _PLAIN is None or _modes() or _function_modes() or _profiling() or _tracing() is not None
    )


def are_plain(values: Iterable[Any]) -> bool:
    """Whether all tensors among the arguments are nothing but memory on the CPU."""
    return all(type(value) in _NO_TENSORS or is_plain(value) for value in values)


def is_plain(value: Any) -> bool:
    """Whether it is a tensor that is nothing but memory on the CPU."""
    return type(value) is Tensor and _PLAIN is not None and _keys(value).raw_repr() in _PLAIN


def guard_of(tensors: Sequence[Tensor]) -> Any:
    """Has ``check(*tensors)``: whether tensors are as these in type, keys, dtype, sizes, strides and ``requires_grad``.

    As torch's compiler asks before it takes compiled code; None where this torch has no such thing.
    """
    return (
        None
        if _guards is None
        else _guards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None)
    )


_NO_TENSORS: Final = frozenset({int, str, bool, type(None)})
