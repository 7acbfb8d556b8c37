"""What a rule is: one record feeds the check, the documentation, `explain` and the tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from ascend_moe.contract.call import Call, TensorLike, dtype_name
from ascend_moe.contract.limits import CONTRACTS, PATHS, PRODUCTS
from ascend_moe.contract.signature import OPERATORS

# Where a rule is checked.
CALL = (
    "call"  # from shapes, dtypes, attributes and variables of one call; no device synchronisation
)
VALUES = "values"  # needs tensor contents: CPU tensors, or ASCEND_MOE_CHECK=full
RANKS = "ranks"  # needs all ranks of the group: agreement.py
PROCESS = "process"  # from what this process has seen before: layers.py
DOCUMENTED = "documented"  # nothing in a call shows it; the record's note says why

# Operators of a rule that concerns one of them.
DISPATCH = ("dispatch",)
COMBINE = ("combine",)

# Public sources.
SEED_DOC = "op-plugin d1c6186d, docs/context/torch_npu-npu_moe_distribute_{dispatch,combine}_v2.md"
CURRENT_DOC = "op-plugin 517f2e7d, docs/zh/custom_APIs/torch_npu/ (same names)"
ACLNN_DOC = "ops-transformer, docs/aclnnMoeDistribute{Dispatch,Combine}V2/V3/V4.md"
TILING = "ops-transformer, mc2/moe_distribute_{dispatch,combine}_v2/op_host/op_tiling"
WRAPPER = "op-plugin, op_plugin/ops/opapi/MoeDistribute*V2*OpApi.cpp"
KERNEL = "ops-transformer, mc2/moe_distribute_{dispatch,combine}_v2/op_kernel"
DOCS = f"{SEED_DOC}; {CURRENT_DOC}"


class Breach(NamedTuple):
    """One way in which a call breaks a rule. None: take the rule's own."""

    value: object
    limit: object
    param: str | None = None
    message: str | None = None
    level: str | None = None


Finding: TypeAlias = Breach | list[Breach] | None
Check: TypeAlias = Callable[[Call], Finding]


def unchecked(call: Call) -> Finding:
    """The check of rules that no single call can show."""
    return None


@dataclass(frozen=True)
class Rule:
    """One documented rule.

    message may use {value} and {limit}; breaks and holds are a violating call and a nearest legal
    one, as changes to the base call of examples.py (None where the rule is not checked on a call).
    They show the rule wherever it applies, except outside `only` and inside `excluding`, where they
    meet another rule first.
    """

    id: str
    param: str
    statement: str
    source: str
    message: str = "is {value}, allowed: {limit}"
    check: Check = unchecked
    operators: tuple[str, ...] = OPERATORS
    products: tuple[str, ...] = PRODUCTS
    contracts: tuple[str, ...] = CONTRACTS
    paths: tuple[str, ...] = PATHS
    level: str = "error"
    checked: str = CALL
    safety: bool = False
    breaks: Mapping[str, object] | None = None
    holds: Mapping[str, object] = field(default_factory=dict)
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    excluding: tuple[Mapping[str, str], ...] = ()
    note: str = ""


def shape_breach(
    tensor: TensorLike | None,
    param: str,
    dtypes: tuple[str, ...],
    shape: tuple[int | None, ...] | None,
    *,
    at_least: bool = False,
) -> Finding:
    """Compare dtype and shape of an optional tensor; None in `shape` matches any size.

    at_least: the first size may be larger, as for buffers sized by A or by counts.
    """
    if tensor is None:
        return None
    actual = tensor.shape
    name = dtype_name(tensor)
    if name in dtypes:
        if shape is None or actual == shape:
            return None
        if len(actual) == len(shape) and not any(shape):  # any sizes
            return None
    found: list[Breach] = []
    if name not in dtypes:
        found.append(Breach(name, " or ".join(dtypes), param, "dtype is {value}, allowed: {limit}"))
    if shape is not None:
        fits = len(actual) == len(shape)
        if fits:
            for index, (have, want) in enumerate(zip(actual, shape, strict=True)):
                if (
                    want is not None
                    and have != want
                    and not (at_least and not index and have > want)
                ):
                    fits = False
        if not fits:
            wanted = tuple("any" if size is None else size for size in shape)
            limit = f"({', '.join(map(str, wanted))}{',' if len(wanted) == 1 else ''})"
            if at_least:
                limit += " or longer"
            found.append(Breach(tuple(actual), limit, param, "shape is {value}, needed: {limit}"))
    return found or None
