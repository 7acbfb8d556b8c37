"""What a rank says about its call before anybody uses its rows, whichever way that travels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from ascend_moe.contract.agreement import FIELDS, disagreements, refusal_of
from ascend_moe.contract.errors import Violation
from ascend_moe.contract.resolve import PRODUCT_VARIABLE

NUMBERS: Final = 24
REASON_BYTES: Final = 256

STATEMENT: Final = np.dtype(
    [
        ("arrived_ns", "i8"),
        ("refused", "i8"),
        ("way", "i8"),
        ("early", "i8"),
        ("rows_per_token", "i8"),
        ("numbers", "i8", (NUMBERS,)),
        ("reason", "u1", (REASON_BYTES,)),
    ]
)
"""``Statement`` of ``native/protocol.h``."""


class Statement(NamedTuple):
    """Numbers, rows for the reader, why the rank refuses (empty if it does not), and which steps follow."""

    numbers: list[int]
    rows: int
    refusal: str
    way: int = 0


def write(record: Any, numbers: Sequence[int], reason: str) -> None:
    """Fills a record, or all of an array, of `STATEMENT`; the steps are those that all modes share."""
    record["refused"] = bool(reason)
    record["way"], record["early"], record["rows_per_token"] = 0, 0, 0
    limits = np.iinfo(np.int64)  # a refused call may hold any number
    record["numbers"][..., : len(numbers)] = [
        min(max(number, limits.min), limits.max) for number in numbers
    ]
    text = reason.encode("ascii", "replace")[:REASON_BYTES].ljust(REASON_BYTES, b"\0")
    record["reason"][...] = np.frombuffer(text, np.uint8)


def read(record: Any, rows: int) -> Statement:
    """What a record says."""
    text = record["reason"].tobytes().rstrip(b"\0").decode("ascii", "replace")
    refusal = text if record["refused"] else ""
    return Statement(
        record["numbers"][: len(FIELDS)].tolist(), int(rows), refusal, int(record["way"])
    )


def found_in(
    statements: Sequence[Statement],
    rank_param: str,
    *,
    refusals: bool = True,
    names: Sequence[int] = (),
) -> list[Violation]:
    """Disagreements, and ranks that refuse the call; the same list on every rank.

    names: what the ranks are called, where that is not their position (`GroupState.names`)
    """
    names = names or range(len(statements))
    found = disagreements(
        [dict(zip(FIELDS, one.numbers, strict=True)) for one in statements],
        rank_param=rank_param,
        names=names,
    )
    who = "rank" if rank_param == "ep_rank_id" else "tp rank"
    refused = [
        refusal_of(who, rank, one.refusal)
        for rank, one in zip(names, statements, strict=True)
        if one.refusal
    ]
    if refusals:
        found += refused
    ways = tuple(one.way for one in statements)
    if len(set(ways)) > 1 and not found and not refused:
        message = (
            f"ranks disagree about the product (A3's combine here is way 1: {ways} by rank); "
            "it must be the same on all ranks"
        )
        found.append(Violation("X-40", "error", PRODUCT_VARIABLE, message, ways, "the same"))
    return found
