"""What the statements of a group say against a call, whichever way they travelled."""

from __future__ import annotations

from collections.abc import Sequence

from ascend_moe.contract.agreement import FIELDS, disagreements, refusal_of
from ascend_moe.contract.errors import Violation
from ascend_moe.contract.resolve import PRODUCT_VARIABLE
from ascend_moe.cpu.distributed.exchange import Statement


def found_in(
    statements: Sequence[Statement], rank_param: str, *, refusals: bool = True
) -> list[Violation]:
    """Disagreements, and ranks that refuse the call; the same list on every rank."""
    found = disagreements(
        [dict(zip(FIELDS, one.numbers, strict=True)) for one in statements], rank_param=rank_param
    )
    who = "rank" if rank_param == "ep_rank_id" else "tp rank"
    refused = [
        refusal_of(who, rank, one.refusal) for rank, one in enumerate(statements) if one.refusal
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
