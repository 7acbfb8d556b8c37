"""A call as JSON: what `ascend-moe check FILE` reads and ASCEND_MOE_DUMP writes.

    {"op": "dispatch", "product": "A3", "contract": "cann-9.1", "env": {"HCCL_BUFFSIZE": "512"},
     "x": {"shape": [8, 7168], "dtype": "bfloat16"}, "ep_world_size": 16, ...}

product, contract and env may be missing. Attributes stand under their keyword; so do tensors, as
shape and dtype, optionally with "contiguous": false or "requires_grad": true.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ascend_moe.contract.call import DescribedTensor, dtype_name, require_types
from ascend_moe.contract.signature import OPERATORS, TENSOR_NAMES

SIZE_MAX = 2**63 - 1
DTYPES = frozenset(
    [
        "bool",
        "uint8",
        "int8",
        "int16",
        "int32",
        "int64",
        "float8_e4m3fn",
        "float8_e5m2",
        "float16",
        "bfloat16",
        "float32",
        "float64",
    ]
)


class DescribedCall(NamedTuple):
    """A call read from JSON; product, contract and env are None where the file leaves them out."""

    op: str
    args: dict[str, object]
    product: str | None
    contract: str | None
    env: dict[str, str] | None


def describe_call(
    op: str, args: Mapping[str, object], *, product: str, contract: str, env: Mapping[str, str]
) -> dict[str, object]:
    """The call as a dictionary for json.dump; parameters that are None are left out."""
    described: dict[str, object] = {
        "op": op,
        "product": product,
        "contract": contract,
        "env": dict(env),
    }
    for name, value in args.items():
        if value is None:
            continue
        if name not in TENSOR_NAMES[op]:
            described[name] = value
            continue
        tensor: Any = value
        entry: dict[str, object] = {"shape": list(tensor.shape), "dtype": dtype_name(tensor)}
        if getattr(tensor, "requires_grad", False):
            entry["requires_grad"] = True
        if not getattr(tensor, "is_contiguous", lambda: True)():
            entry["contiguous"] = False
        described[name] = entry
    return described


def read_call(document: object) -> DescribedCall:
    """The call that a parsed JSON document describes.

    Raises ValueError or TypeError, with one sentence naming the key, for anything else.
    """
    if not isinstance(document, dict):
        raise ValueError('the file must hold one JSON object with a key "op"')
    entries = dict(document)
    op = entries.pop("op", None)
    if op not in OPERATORS:
        raise ValueError(f'"op" is {_shown(op)}, allowed: {", ".join(OPERATORS)}')
    product = _text(entries.pop("product", None), "product")
    contract = _text(entries.pop("contract", None), "contract")
    env = entries.pop("env", None)
    if env is not None and not (
        isinstance(env, dict) and all(isinstance(value, str) for value in env.values())
    ):
        raise ValueError('"env" must be an object whose values are strings')
    args: dict[str, object] = {}
    for name, value in entries.items():
        if name in TENSOR_NAMES[op] and value is not None:
            args[name] = _tensor(name, value)
        elif isinstance(value, bool):
            raise ValueError(f'"{name}" must be a number, not a boolean')
        elif isinstance(value, int) and not -SIZE_MAX <= value <= SIZE_MAX:
            raise ValueError(f'"{name}" does not fit into 64 bits')
        else:
            args[name] = value
    require_types(op, args)
    return DescribedCall(op, args, product, contract, env)


def _tensor(name: str, value: object) -> DescribedTensor:
    if not isinstance(value, dict):
        raise ValueError(f'"{name}" must be an object with "shape" and "dtype"')
    unknown = set(value) - {"shape", "dtype", "contiguous", "requires_grad"}
    if unknown:
        raise ValueError(f'"{name}" has an unknown key {_shown(min(unknown))}')
    shape = value.get("shape")
    if not isinstance(shape, list) or not all(
        isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= SIZE_MAX
        for size in shape
    ):
        raise ValueError(f'"{name}": "shape" must be a list of sizes')
    dtype = value.get("dtype")
    if not isinstance(dtype, str) or dtype.removeprefix("torch.") not in DTYPES:
        raise ValueError(f'"{name}": "dtype" is {_shown(dtype)}, not the name of a torch dtype')
    flags = (value.get("contiguous", True), value.get("requires_grad", False))
    if not all(isinstance(flag, bool) for flag in flags):
        raise ValueError(f'"{name}": "contiguous" and "requires_grad" must be true or false')
    return DescribedTensor(tuple(shape), dtype.removeprefix("torch."), *flags)


def _text(value: object, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f'"{name}" must be a string')
    return value


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
