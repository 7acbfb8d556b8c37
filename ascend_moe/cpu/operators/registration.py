"""The CPU kernels behind the stock operator names ``npu::npu_moe_distribute_*_v2``.

Without torch_npu the schema is ours: a fragment of the ``npu`` namespace with CPU and Meta kernels. With torch_npu the
schema and the Meta kernel are its own and only the CPU kernel is added. Two traps decide the order of things:

* two definitions of one schema abort the process. So torch_npu is imported first if it can be; and if the caller
  imports it later, an import hook takes our fragment away just before and adds the CPU kernel again afterwards;
* an import of torch_npu that failed half-way may leave the schema behind: then only kernels are added.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ascend_moe.bootstrap import import_torch_npu
from ascend_moe.contract.shapes import combine_spec, dispatch_specs_of_call
from ascend_moe.contract.signature import OPERATORS, PARAMETERS, schema, with_defaults
from ascend_moe.cpu.operators import kernels

_NAMESPACE = "npu"
_Library: Any = torch.library.Library  # its methods carry no types
_library: Any = None


def register() -> None:
    """Makes ``torch.ops.npu.npu_moe_distribute_dispatch_v2`` and ``..._combine_v2`` work on CPU tensors.

    Idempotent. Imports torch_npu first if it is installed and can be imported. The functions of `ascend_moe` call
    this themselves; it is for those who call ``torch.ops.npu`` directly.
    """
    if _library is not None:
        return
    import_torch_npu()
    if _library is None:  # importing torch_npu runs the hook below if it was in place
        _register()


def _register() -> None:
    global _library
    library = _Library(_NAMESPACE, "FRAGMENT")
    for op in OPERATORS:
        name = f"npu_moe_distribute_{op}_v2"
        kernel = kernels.dispatch if op == "dispatch" else kernels.combine
        meta = _dispatch_meta if op == "dispatch" else _combine_meta
        if not _defined(name):
            library.define(schema(op))
        library.impl(name, _by_keyword(op, kernel), "CPU")
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"{_NAMESPACE}::{name}", "Meta"):
            library.impl(name, _by_keyword(op, meta), "Meta")
    _library = library
    if "torch_npu" not in sys.modules and not any(isinstance(f, _Hook) for f in sys.meta_path):
        sys.meta_path.insert(0, _Hook())


def _unregister() -> None:
    """Takes our kernels, and the schema if it is ours, out of the dispatcher."""
    global _library
    if _library is not None:
        _library._destroy()
        _library = None
        for op in OPERATORS:  # torch caches the operator under its namespace
            vars(getattr(torch.ops, _NAMESPACE)).pop(f"npu_moe_distribute_{op}_v2", None)


def _defined(name: str) -> bool:
    return bool(torch._C._jit_get_schemas_for_operator(f"{_NAMESPACE}::{name}"))


def _by_keyword(op: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The dispatcher passes required parameters by position; the kernels take names."""
    names = [parameter.name for parameter in PARAMETERS[op]]

    @functools.wraps(kernel)
    def positional(*args: Any, **kwargs: Any) -> Any:
        return kernel(**dict(zip(names, args, strict=False)), **kwargs)

    return positional


def _dispatch_meta(**arguments: Any) -> tuple[Tensor, ...]:
    call: dict[str, Any] = with_defaults("dispatch", arguments)
    x = call["x"]
    return tuple(
        x.new_empty(spec.shape, dtype=getattr(torch, spec.dtype))
        for spec in dispatch_specs_of_call(call)
    )


def _combine_meta(**arguments: Any) -> Tensor:
    call: dict[str, Any] = with_defaults("combine", arguments)
    expand_x = call["expand_x"]
    spec = combine_spec(
        bs=call["expert_ids"].shape[0], hidden=expand_x.shape[1], expand_x_dtype=str(expand_x.dtype)
    )
    output: Tensor = expand_x.new_empty(spec.shape)
    return output


class _Hook(importlib.abc.MetaPathFinder):
    """Makes room for torch_npu when it is imported after us, and adds the CPU kernels to it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "torch_npu":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _MakeRoom(spec.loader)
        return spec


class _MakeRoom(importlib.abc.Loader):
    """Unregisters, loads torch_npu as its own loader does, and registers again, also when the import fails.

    All of it when the module is executed: whoever only asks whether torch_npu is there (`find_spec`) changes nothing.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        module: types.ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        _unregister()
        try:
            self._loader.exec_module(module)
        finally:
            _register()
