"""What the page of the calculator computes with, as JavaScript: the functions of ascend_moe, traced (../symbolic.py).

    FUNCTIONS   every distinct function once; a number in the tables below is its place here, null is nothing at all
    JUDGED      contract -> the one whose rules and formulas count; below it is "contract" except for DEFECTS
    RULES       product, contract, algorithm -> the violations of one rule each
    DEFECTS     product, contract, algorithm, operator -> warnings about the stock kernels
    TRAFFIC     product, contract, algorithm -> the path and the sizes that a formula reads
    FORMULAS    product, contract, path, operator, implementation -> bytes, and the formula with its numbers
    BATCH_MAX   product, contract, path -> the largest max_bs
    MEGABYTES   product -> of bytes: the smallest sufficient HCCL_BUFFSIZE
    MEMORY      of mb: the device memory of one group
    REMARKS     product, implementation, whether a literal reading differs -> notes
    SERVING     which serving flags are given -> max_bs, its derivation and what it covers
    AUTO        algorithm -> the contract where none is chosen

A function takes an object of BigInt fields and returns null, a BigInt, a text or a list of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import product as combinations
from typing import Any

from ascend_moe.contract.buffsize import IMPLEMENTATIONS, BuffSize, Traffic, Window
from ascend_moe.contract.errors import Violation
from ascend_moe.contract.limits import (
    BETWEEN,
    CONTRACTS,
    LIMITS,
    PATHS,
    PRODUCTS,
    path_limits,
)
from ascend_moe.contract.resolve import knows_call
from ascend_moe.contract.rules import RULES
from ascend_moe.contract.rules.buffer import call_traffic
from ascend_moe.contract.rules.rule import CALL
from ascend_moe.contract.signature import CANN_8_2, CANN_9_1
from ascend_moe.sizing.answer import remarks
from ascend_moe.sizing.described import NOT_OF_SIZES, OPS, Described, judged_by
from ascend_moe.sizing.serving import derive_max_bs
from generators.symbolic import Choice, Leaf, Raised, Whole, explore

LARGEST = 2**31 - 1
# The keywords of required_hccl_buffsize that are fields of the page, and the least that a field takes.
FIELDS = {
    "max_bs": 1,
    "hidden": 1,
    "topk": 1,
    "ep_world_size": 1,
    "moe_expert_num": 1,
    "shared_expert_num": 0,
    "shared_expert_rank_num": 0,
}
TRAFFIC = {
    "max_bs": 1,
    "hidden": 1,
    "topk": 1,
    "ep": 1,
    "moe_experts": 1,
    "local_experts": 1,
    "shared_experts": 0,
}
FLAGS = {
    "max_num_seqs": 1,
    "spec_tokens": 0,
    "max_capture_size": 1,
    "max_num_batched_tokens": 1,
    "serving_tp": 1,
    "cap": 1,
}
OPTIONAL_FLAGS = ("max_num_batched_tokens", "max_capture_size", "max_num_seqs", "cap")
ALL_CONTRACTS = (CONTRACTS[0], BETWEEN, *CONTRACTS[1:])
ALGORITHMS = {path: "" if path == "fullmesh" else path for path in PATHS}  # -> comm_alg


class Functions:
    """Texts of functions, each kept once."""

    def __init__(self) -> None:
        self.texts: dict[str, int] = {}

    def add(self, traced: Callable[[], Any], fields: dict[str, int]) -> int | None:
        """The index of what `traced` computes; None where that is never anything."""
        bounds = {name: (least, LARGEST) for name, least in fields.items()}
        text = script(explore(traced, bounds, leaf_script))
        if text in ("null", "[]"):
            return None
        return self.texts.setdefault(f"s=>{text}", len(self.texts))


def script(tree: Any) -> str:
    """A tree whose leaves are texts already."""
    if not isinstance(tree, Choice):
        return tree
    how, left, right = tree.condition
    sign = {"==": "===", "<": "<"}[how]
    return f"{number(left)}{sign}{number(right)}?{script(tree.so)}:{_inner(tree.otherwise)}"


def _inner(tree: Any) -> str:
    return f"({script(tree)})" if isinstance(tree, Choice) else script(tree)


def number(expression: Any) -> str:
    if isinstance(expression, int):
        return f"{expression}n"
    if isinstance(expression, str):
        return f"s.{expression}"
    symbol, left, right = expression
    if symbol == "-" and left == 0 and right[0] == "//" and right[1][:2] == ("-", 0):
        return f"up({number(right[1][2])},{number(right[2])})"  # -(-a // b)
    if symbol in "//%":
        return f"{'div' if symbol == '//' else 'mod'}({number(left)},{number(right)})"
    return f"({number(left)}{symbol}{number(right)})"


def leaf_script(leaf: Leaf) -> str:
    """What a function returned, as an expression of JavaScript."""

    def written(value: Any) -> str:
        if isinstance(value, Whole):
            return number(value.node)
        if value is None or isinstance(value, bool):
            return json.dumps(value)
        if isinstance(value, int):
            return f"{value}n"
        if isinstance(value, str):
            return text(value)
        if isinstance(value, Violation):
            return written([value.rule, value.level, value.param, value.message])
        if isinstance(value, Raised):
            return f"{{error:{text(value.message)}}}"
        assert isinstance(value, (list, tuple)), value
        return f"[{','.join(map(written, value))}]"

    def text(value: str) -> str:
        parts = re.split("\x02(\\d+)\x03", value)
        shown = [json.dumps(part) for part in parts]
        shown[1::2] = [number(leaf.named[int(index)]) for index in parts[1::2]]
        return "+".join(part for index, part in enumerate(shown) if index == 0 or part != '""')

    return written(leaf.value)


def fields(names: dict[str, int]) -> dict[str, Whole]:
    return {name: Whole(name) for name in names}


def tables() -> dict[str, Any]:
    """The tables above, and the choices of the page."""
    functions = Functions()
    where = list(combinations(PRODUCTS, ALL_CONTRACTS, ALGORITHMS))
    judged = [place for place in where if place[1] in CONTRACTS]
    known = [place for place in judged if place[2] in LIMITS[place[1], place[0]].paths]

    def described(product: str, contract: str, algorithm: str, **more: str) -> Described:
        return Described.of(
            product=product,
            contract=contract,
            comm_alg=ALGORITHMS[algorithm],
            env={},
            **fields(FIELDS),  # type: ignore[arg-type]
            **more,  # type: ignore[arg-type]
        )

    def rules(product: str, contract: str, algorithm: str) -> Iterator[int]:
        for rule in RULES:
            if rule.checked != CALL or rule.id in NOT_OF_SIZES or "dispatch" not in rule.operators:
                continue
            found = functions.add(
                lambda rule=rule: described(product, contract, algorithm).broken((rule.id,)), FIELDS
            )
            if found is not None:
                yield found

    def traffic(place: tuple[str, str, str]) -> int | None:
        def traced() -> list[Any] | None:
            call = described(*place).call
            sizes = call_traffic(call)
            return (
                None if sizes is None else [call.path, *(getattr(sizes, name) for name in TRAFFIC)]
            )

        return functions.add(traced, FIELDS)

    def formula(*window: str) -> int | None:
        def traced() -> list[Any]:
            needed = Window(*window).formula(Traffic(**fields(TRAFFIC)))
            return [needed.bytes, str(needed)]

        return functions.add(traced, TRAFFIC)

    def remark(product: str, implementation: str, literal: bool) -> int | None:
        given = {"bytes": 1, "mb": 1} | ({"literal_mb": 1} if literal else {})
        return functions.add(
            lambda: remarks(
                BuffSize(algorithm="", formula="", **fields(given)), product, implementation
            ),
            given,
        )

    def serving(given: tuple[str, ...]) -> int | None:
        flags: dict[str, Any] = dict.fromkeys(OPTIONAL_FLAGS)
        flags |= fields(dict.fromkeys(("spec_tokens", "serving_tp", *given), 0))
        return functions.add(lambda: derive_max_bs(**flags), FLAGS)

    return {
        "JUDGED": {contract: judged_by(contract) for contract in ALL_CONTRACTS},
        "RULES": {" ".join(place): list(rules(*place)) for place in judged},
        "DEFECTS": {
            " ".join((*place, op)): functions.add(
                lambda place=place, op=op: described(*place, op=op).defects(), FIELDS
            )
            for place in where
            for op in OPS
        },
        "TRAFFIC": {" ".join(place): traffic(place) for place in judged},
        "FORMULAS": {
            " ".join(window): formula(*window)
            for place in known
            for op in OPS
            for implementation in IMPLEMENTATIONS
            for window in [(*place, op, implementation)]
        },
        "BATCH_MAX": {
            f"{product} {contract} {path}": path_limits(contract, product, path).batch_max
            for product, contract, path in known
        },
        "MEGABYTES": {
            product: functions.add(
                lambda product=product: Window(product, "", "", "").megabytes(Whole("bytes")),
                {"bytes": 1},
            )
            for product in PRODUCTS
        },
        "MEMORY": functions.add(
            lambda: BuffSize(Whole("bytes"), Whole("mb"), "", "").memory_mb, {"mb": 1}
        ),
        "REMARKS": {
            f"{product} {implementation} {literal}".lower(): remark(
                product, implementation, literal
            )
            for product in PRODUCTS
            for implementation in IMPLEMENTATIONS
            for literal in (False, True)
        },
        "SERVING": {
            " ".join(given): serving(given)
            for chosen in combinations((False, True), repeat=len(OPTIONAL_FLAGS))
            if any(chosen[:-1])
            for given in [
                tuple(name for name, so in zip(OPTIONAL_FLAGS, chosen, strict=True) if so)
            ]
        },
        "AUTO": {
            algorithm: CANN_8_2 if knows_call("dispatch", {"comm_alg": comm_alg}) else CANN_9_1
            for algorithm, comm_alg in ALGORITHMS.items()
        },
        "FUNCTIONS": list(functions.texts),
    }
