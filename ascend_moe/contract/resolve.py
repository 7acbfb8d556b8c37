"""Which product and which contract a call is judged by, and how that was determined."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from ascend_moe.contract.limits import BETWEEN, CONTRACTS, PRODUCTS
from ascend_moe.contract.signature import CANN_8_2, CANN_9_1, PARAMETERS

PRODUCT_VARIABLE = "ASCEND_MOE_PRODUCT"
CONTRACT_VARIABLE = "ASCEND_MOE_CONTRACT"


class Resolved(NamedTuple):
    """name: "A3", "cann-9.1", ...; how: half a sentence for the first line of an error."""

    name: str
    how: str


def resolve_product(product: str | None = None, env: Mapping[str, str] | None = None) -> Resolved:
    """The product asked for, else ASCEND_MOE_PRODUCT, else the NPU that is present, else A3.

    Raises ValueError for a name that is neither A2 nor A3, and for another Ascend chip.
    """
    if product is not None:
        return Resolved(_product(product, "product"), "given")
    named = (os.environ if env is None else env).get(PRODUCT_VARIABLE)
    if named:
        return Resolved(_product(named, PRODUCT_VARIABLE), PRODUCT_VARIABLE)
    from ascend_moe.hardware.product import present_product

    present = present_product()
    if present is not None:
        return Resolved(present.product, f"the {present.chip} here")
    return Resolved("A3", "default, no NPU here")


def resolve_contract(
    op: str,
    args: Mapping[str, object],
    contract: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Resolved:
    """The contract asked for, else ASCEND_MOE_CONTRACT, else what auto means.

    auto: where an NPU is present by the version of CANN's ops package, else by that of CANN, and without
    an NPU the oldest contract that knows every parameter that the call sets.

    Raises ValueError for an unknown name.
    """
    choices = (*CONTRACTS, BETWEEN, "auto")
    if contract is not None and _known(contract, choices, "contract") != "auto":
        return Resolved(contract, "given")
    if contract is None:
        named = (os.environ if env is None else env).get(CONTRACT_VARIABLE)
        if named and _known(named, choices, CONTRACT_VARIABLE) != "auto":
            return Resolved(named, CONTRACT_VARIABLE)
    from ascend_moe.hardware.product import present_product

    if present_product() is not None:
        from ascend_moe.hardware.cann import cann_version, numbers, operators_version_text

        for package, version in (
            ("ops package", numbers(operators_version_text())),
            ("CANN", cann_version()),
        ):
            if version is not None:
                shown = ".".join(map(str, version))
                return Resolved(contract_of_cann(version), f"{package} {shown}")
    if knows_call(op, args):
        return Resolved(CANN_8_2, "oldest that knows the call's parameters")
    return Resolved(CANN_9_1, "oldest that knows the call's parameters")


def contract_of_cann(version: tuple[int, int]) -> str:
    """Up to 8.2 the first contract, 8.3 to 9.0 between the two, from 9.1 on the second."""
    if version <= (8, 2):
        return CANN_8_2
    return BETWEEN if version < (9, 1) else CANN_9_1


def knows_call(op: str, args: Mapping[str, object]) -> bool:
    """Whether the first contract knows every parameter that the call sets."""
    for name, default in _LATER[op]:
        value = args.get(name)
        if value is None or value is default:
            continue
        if name == "comm_alg" and value == "0":
            continue  # what the first wrapper sends down
        if not isinstance(value, (int, str)) or value != default:
            return False
    return True


_LATER = {
    op: tuple((p.name, p.default) for p in table if p.since != CANN_8_2)
    for op, table in PARAMETERS.items()
}


def _product(name: str, what: str) -> str:
    if name.upper().removeprefix("ASCEND").startswith(("A5", "950")):
        from ascend_moe.hardware.product import other_chip

        raise ValueError(f"{what} is {name!a}: {other_chip('Ascend950')}")
    return _known(name, PRODUCTS, what)


def _known(name: str, choices: tuple[str, ...], what: str) -> str:
    if name not in choices:
        raise ValueError(f"{what} is {name!a}, allowed: {', '.join(choices)}")
    return name
