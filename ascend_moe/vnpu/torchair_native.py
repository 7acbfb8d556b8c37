"""The native half of torchair, in Python: graphs are kept and run node by node.

torchair turns an FX graph into a GE graph (protobuf) by its own converters and hands it to a native
module, which would compile it with CANN's graph engine. Here that module is this file: it
parses the graph and runs its nodes in order, each by the torch call it came from. A node type that is
not in the table is refused by name.

Graphs that were loaded in this process can be looked at: :data:`loaded_graphs`.

torchair asks for the module as ``torchair.core._torchair``. :func:`install` answers that import, before
the real shared library is found. Nothing here imports torch until then.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

NATIVE_MODULES = ("_torchair", "_npu_graph_executor", "_npu_utils")

# The GE graphs of this process, oldest first (ge_ir_pb2.GraphDef).
loaded_graphs: list[Any] = []


def install() -> None:
    """Answer torchair's import of its native modules from now on. Harmless when repeated."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds torchair.core._torchair and its siblings, whichever package path torchair is imported by."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if name not in NATIVE_MODULES or not f".{package}".endswith(".torchair.core"):
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def exec_module(self, module: types.ModuleType) -> None:
        if not module.__name__.endswith("._torchair"):
            return  # the siblings must exist; what they hold is for formats that do not occur here
        module.__dict__.update(
            TorchNpuGraphBase=TorchNpuGraphBase,
            TorchDataType=TorchDataType,
            InitializeGraphEngine=_nothing,
            FinalizeGraphEngine=_nothing,
            InitDeviceStdoutChannel=_nothing,
            SetDebugLogPath=_nothing,
            check_cann_compat=_compatible,
            get_registered_ir_def=_no_custom_ir,
        )


class TorchDataType:
    """Names of torch's data types; torchair compares them only with each other."""

    BOOL, UINT8, INT8, INT16, UINT16, INT32, UINT32, INT64, UINT64 = range(9)
    BF16, FLOAT16, FLOAT32, FLOAT64, COMPLEX64, COMPLEX128 = range(9, 15)


class TorchNpuGraphBase:
    """A loaded graph. torchair subclasses it and calls the methods in the order load, compile, run."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._graph: Any = None

    def load(
        self, serialized: bytes, options: Any, placements: Any, output_dtypes: Any, executor: Any
    ) -> None:
        """Parse the GE graph."""
        from torchair._ge_concrete_graph.ge_ir_pb2 import ModelDef

        model = ModelDef()
        model.ParseFromString(serialized)
        self._graph = model.graph[0] if model.graph else None
        if self._graph is None or not self._graph.op:
            from torchair._ge_concrete_graph.ge_ir_pb2 import GraphDef

            self._graph = GraphDef()
            self._graph.ParseFromString(serialized)
        loaded_graphs.append(self._graph)

    def set_hint_shape(self, inputs: Any, outputs: Any) -> None:
        """Shapes come from the tensors here."""

    def compile(self) -> None:
        """Refuse what cannot be run, before anything runs."""
        unknown = sorted(
            {op.type for op in self._graph.op} - set(NODE_KERNELS) - {"Data", "NetOutput"}
        )
        if unknown:
            raise NotImplementedError(
                f"the virtual NPU cannot run these GE operators: {', '.join(unknown)}"
            )

    def auto_tune(self, arguments: Any) -> None:
        """There is nothing to tune."""

    def run(self, arguments: Any) -> tuple[Any, ...]:
        """Run the nodes in the order of the graph; arguments = (inputs, assigned outputs, stream)."""
        inputs, assigned_outputs, _ = arguments
        results = run_graph(self._graph, list(inputs))
        for target, result in zip(assigned_outputs, results, strict=False):
            if target is not None:
                target.copy_(result)
        return tuple(results)


def run_graph(graph: Any, inputs: list[Any]) -> list[Any]:
    """The outputs of a GE graph, its nodes run one by one on the tensors' own device."""
    values: dict[str, Any] = {"": None}
    for op in graph.op:
        arguments = [values[source] for source in op.input if not source.endswith(":-1")]
        if op.type == "Data":
            outputs = [inputs[op.attr["index"].i]]
        elif op.type == "NetOutput":
            return arguments
        else:
            outputs = NODE_KERNELS[op.type](op, arguments)
        values.update({f"{op.name}:{index}": output for index, output in enumerate(outputs)})
    raise ValueError("the GE graph has no NetOutput")


# ---- node kernels: GE operator -> the torch call that means the same ------------------------------


def _moe_call(operator: str) -> Callable[..., Any]:
    """A kernel for one of the two MoE operators: inputs and attributes by name.

    Not by position: torchair of 2.8 leaves out an elastic_info that is not given, and what follows moves up.
    GE knows a few reserved inputs and attributes that the torch operator does not have.
    """

    def kernel(op: Any, tensors: list[Any]) -> list[Any]:
        import torch

        operator_call = getattr(torch.ops.npu, operator)
        known = {argument.name for argument in operator_call.default._schema.arguments} - {
            "y_dtype"
        }
        given = dict(zip((desc.name for desc in op.input_desc), tensors, strict=False))
        given |= {name: _attribute(value) for name, value in op.attr.items()}
        result = operator_call(**{name: value for name, value in given.items() if name in known})
        return [result] if isinstance(result, torch.Tensor) else list(result)

    return kernel


def _attribute(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return value.s.decode() if kind == "s" else getattr(value, kind)


def _elementwise(name: str) -> Callable[..., Any]:
    def kernel(op: Any, tensors: list[Any]) -> list[Any]:
        import torch

        return [getattr(torch, name)(*tensors)]

    return kernel


def _with_scalar(name: str) -> Callable[..., Any]:
    """The other operand is the attribute ``value``."""

    def kernel(op: Any, tensors: list[Any]) -> list[Any]:
        import torch

        return [getattr(torch, name)(tensors[0], op.attr["value"].f)]

    return kernel


def _identity(op: Any, tensors: list[Any]) -> list[Any]:
    return tensors[:1]


def _cast(op: Any, tensors: list[Any]) -> list[Any]:
    from torchair.ge._ge_graph import ge_type_to_torch_type

    return [tensors[0].to(ge_type_to_torch_type(op.attr["dst_type"].i))]


NODE_KERNELS: dict[str, Callable[[Any, list[Any]], list[Any]]] = {
    "MoeDistributeDispatchV2": _moe_call("npu_moe_distribute_dispatch_v2"),
    "MoeDistributeCombineV2": _moe_call("npu_moe_distribute_combine_v2"),
    "Cast": _cast,
    "Identity": _identity,
    "Add": _elementwise("add"),
    "AddV2": _elementwise("add"),
    "Sub": _elementwise("sub"),
    "Mul": _elementwise("mul"),
    "Adds": _with_scalar("add"),
    "Muls": _with_scalar("mul"),
    "RealDiv": _elementwise("true_divide"),
    "MatMul": _elementwise("matmul"),
    "MatMulV2": _elementwise("matmul"),
    "BatchMatMul": _elementwise("matmul"),
    "Neg": _elementwise("neg"),
    "Relu": _elementwise("relu"),
    "Sigmoid": _elementwise("sigmoid"),
}


def _nothing(*_: Any) -> None:
    """Start, end and logging of the graph engine."""


def _compatible(*_: Any) -> str:
    return ""


def _no_custom_ir(_: str) -> tuple[str, list[Any], list[Any], list[Any]]:
    return "ERROR", [], [], []
