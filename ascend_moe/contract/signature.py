"""The parameters of both operators, in torch_npu 2.13's order, with defaults and the contract that introduced them.

One table per operator. The schema that is registered with torch, the Python signature in ``api.py`` (a test compares
them) and the refusal of parameters that a contract does not know are all made from it.

Source: op-plugin ``op_plugin/config/op_plugin_functions.yaml`` (2025-07-10 `24023a4a` to 2025-11-26 `2036fae6`).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

OPERATORS: Final = ("dispatch", "combine")

CANN_8_2: Final = "cann-8.2"
CANN_9_1: Final = "cann-9.1"
ASCEND_950: Final = "Ascend 950 only"


@dataclass(frozen=True)
class Parameter:
    """One parameter: its schema type, its default (None for a tensor that may be absent), who introduced it."""

    name: str
    type: str
    default: object = None
    required: bool = False
    since: str = CANN_8_2

    @property
    def is_tensor(self) -> bool:
        """Whether the parameter is a tensor, required or optional."""
        return self.type.startswith("Tensor")

    @property
    def declaration(self) -> str:
        """The parameter as the schema language writes it."""
        if self.required:
            return f"{self.type} {self.name}"
        default = f'"{self.default}"' if isinstance(self.default, str) else self.default
        return f"{self.type} {self.name}={default}"


def _tensors(*names: str, required: bool = False, since: str = CANN_8_2) -> tuple[Parameter, ...]:
    kind = "Tensor" if required else "Tensor?"
    return tuple(Parameter(name, kind, required=required, since=since) for name in names)


def _ints(
    *names: str, required: bool = False, since: str = CANN_8_2, **defaults: int
) -> tuple[Parameter, ...]:
    without = tuple(Parameter(name, "int", 0, required, since) for name in names)
    return without + tuple(
        Parameter(name, "int", value, since=since) for name, value in defaults.items()
    )


_GROUP = (
    Parameter("group_ep", "str", required=True),
    *_ints("ep_world_size", "ep_rank_id", "moe_expert_num", required=True),
)
_PARALLELISM = (
    Parameter("group_tp", "str", ""),
    *_ints("tp_world_size", "tp_rank_id", "expert_shard_type", shared_expert_num=1),
    *_ints("shared_expert_rank_num"),
)
_LATER = (
    Parameter("comm_alg", "str", "", since=CANN_9_1),
    *_ints("zero_expert_num", "copy_expert_num", "const_expert_num", since=CANN_9_1),
)

DISPATCH: Final = (
    *_tensors("x", "expert_ids", required=True),
    *_GROUP,
    *_tensors("scales", "x_active_mask", "expert_scales"),
    *_tensors("elastic_info", "performance_info", since=CANN_9_1),
    *_PARALLELISM,
    *_ints("quant_mode", "global_bs", expert_token_nums_type=1),
    *_LATER,
    *(Parameter(name, "int?", since=ASCEND_950) for name in ("y_dtype", "x_dtype", "scales_dtype")),
)
COMBINE: Final = (
    *_tensors(
        "expand_x",
        "expert_ids",
        "assist_info_for_combine",
        "ep_send_counts",
        "expert_scales",
        required=True,
    ),
    *_GROUP,
    *_tensors("tp_send_counts", "x_active_mask", "expand_scales", "shared_expert_x"),
    *_tensors(
        "elastic_info",
        "ori_x",
        "const_expert_alpha_1",
        "const_expert_alpha_2",
        "const_expert_v",
        "performance_info",
        since=CANN_9_1,
    ),
    *_PARALLELISM,
    *_ints("global_bs", "comm_quant_mode"),
    *_LATER,
)
PARAMETERS: Final[Mapping[str, tuple[Parameter, ...]]] = {"dispatch": DISPATCH, "combine": COMBINE}

POSITIONAL: Final = {op: [p.name for p in table if p.required] for op, table in PARAMETERS.items()}
"""The names that may be given by position: exactly the required ones."""

TENSOR_NAMES: Final = {
    op: tuple(p.name for p in table if p.is_tensor) for op, table in PARAMETERS.items()
}
ATTRIBUTE_NAMES: Final = {
    op: tuple(p.name for p in table if not p.is_tensor) for op, table in PARAMETERS.items()
}
"""What is not a tensor; ``group_ep`` is the first."""

tensors_of: Final = {op: itemgetter(*names) for op, names in TENSOR_NAMES.items()}
"""The tensors of a call with every keyword, None where it has none, as a tuple in the order of `TENSOR_NAMES`."""
attributes_of: Final = {op: itemgetter(*names) for op, names in ATTRIBUTE_NAMES.items()}

_DEFAULTS: Final = {op: {p.name: p.default for p in table} for op, table in PARAMETERS.items()}


def schema(op: str, names: Container[str] | None = None) -> str:
    """The operator's schema without namespace, for example ``npu_moe_distribute_combine_v2(Tensor ...) -> Tensor``.

    names: what a torch_npu before 2.13 has of the parameters; None: all.
    """
    table = [p for p in PARAMETERS[op] if names is None or p.name in names]
    required = ", ".join(p.declaration for p in table if p.required)
    optional = ", ".join(p.declaration for p in table if not p.required)
    returns = f"({', '.join(['Tensor'] * 7)})" if op == "dispatch" else "Tensor"
    return f"npu_moe_distribute_{op}_v2({required}, *, {optional}) -> {returns}"


def with_defaults(op: str, arguments: Mapping[str, object]) -> dict[str, object]:
    """``arguments`` plus the default of every optional parameter that is not among them.

    Raises TypeError, naming the parameter, for an unknown keyword or a missing required one (``group_ep`` may be
    missing: a call that is only described needs no communicator).
    """
    unknown = [name for name in arguments if name not in _DEFAULTS[op]]
    if unknown:
        raise TypeError(
            f"npu_moe_distribute_{op}_v2() got an unexpected keyword argument '{unknown[0]}'"
        )
    missing = [name for name in POSITIONAL[op] if name not in arguments and name != "group_ep"]
    if missing:
        raise TypeError(
            f"npu_moe_distribute_{op}_v2() misses required arguments: {', '.join(missing)}"
        )
    return {**_DEFAULTS[op], **arguments}


def by_name(op: str, tensors: Sequence[Any], attributes: Sequence[Any]) -> dict[str, Any]:
    """The call that `tensors_of` and `attributes_of` take apart."""
    call = dict(zip(TENSOR_NAMES[op], tensors, strict=True))
    call.update(zip(ATTRIBUTE_NAMES[op], attributes, strict=True))
    return call
