"""What the ranks of one call must agree about, and how a disagreement is told (rules X-08, X-40, X-45).

No rank can check this alone, and a rank that differs makes the exchange hang or misread its windows. Every rank
makes a *statement*: a fixed list of integers. Executors exchange the statements before anything else and compare
them with `disagreements`; the comparison is the same on every rank, so all of them raise the same error.

Documented to agree (op-plugin `d1c6186d`, both operators): ep_world_size, moe_expert_num, expert_shard_type,
shared_expert_num, shared_expert_rank_num, global_bs, tp_world_size. The rest of the statement is what the rows on the
link are made of: a rank that differs there would misread its peers' rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ascend_moe.contract.errors import Violation
from ascend_moe.contract.signature import OPERATORS

ATTRIBUTES: Final = (
    "ep_world_size",
    "moe_expert_num",
    "expert_shard_type",
    "shared_expert_num",
    "shared_expert_rank_num",
    "global_bs",
    "tp_world_size",
    "quant_mode",
    "comm_quant_mode",
    "comm_alg",
)
DTYPES: Final = ("bfloat16", "float16")
ALGORITHMS: Final = ("", "fullmesh", "fullmesh_v1", "fullmesh_v2", "hierarchy")
FIELDS: Final = (
    "operator",
    "ep_rank_id",
    "bs",
    "masks_a_token",
    "H",
    "K",
    "dtype",
    *ATTRIBUTES,
)
"""Names of the integers of a statement, in the order in which they travel."""

UNKNOWN: Final = -(2**31)
"""A size that a broken call does not have; the rank that made it reports what is wrong."""

_MUST_AGREE: Final = ("operator", *ATTRIBUTES, "H", "K", "dtype")
_NAMES: Final[Mapping[str, Sequence[str]]] = {
    "operator": OPERATORS,
    "dtype": DTYPES,
    "comm_alg": ALGORITHMS,
}


def statement(op: str, call: Mapping[str, Any]) -> dict[str, int]:
    """The statement of one rank; ``call`` holds every parameter of the operator (defaults filled in)."""
    tokens = call["x" if op == "dispatch" else "expand_x"]
    mask = call["x_active_mask"]
    bs, topk = _two(call["expert_ids"].shape)
    fields = {
        "operator": OPERATORS.index(op),
        "ep_rank_id": call["ep_rank_id"],
        "bs": bs,
        "masks_a_token": int(mask is not None and not bool(mask.all())),
        "H": _two(tokens.shape)[1],
        "K": topk,
        "dtype": _index(DTYPES, str(tokens.dtype).removeprefix("torch.")),
    }
    fields.update((name, call.get(name, 0)) for name in ATTRIBUTES)
    fields["comm_alg"] = _index(ALGORITHMS, call["comm_alg"])
    return fields


def _two(shape: Sequence[int]) -> tuple[int, int]:
    return (shape[0], shape[1]) if len(shape) == 2 else (UNKNOWN, UNKNOWN)


def _index(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else -1


def disagreements(statements: Sequence[Mapping[str, int]]) -> list[Violation]:
    """All rules that the statements of an EP group break together; position in the list = rank in the group.

    With TP the list may hold several EP groups: only what must be equal everywhere is then compared across them.
    """
    found = [
        Violation(
            rule="X-40",
            level="error",
            param=name,
            message=f"ranks disagree: {_who_has_what(name, values)}; it must be the same on all ranks",
            value=tuple(values),
            limit="the same on all ranks",
        )
        for name in _MUST_AGREE
        if len(set(values := [one[name] for one in statements]) - {UNKNOWN}) > 1
    ]
    sizes = [one["bs"] for one in statements]
    uneven = len(set(sizes)) > 1 and UNKNOWN not in sizes
    first = statements[0]
    if uneven and not first["global_bs"]:
        needed = max(sizes) * first["ep_world_size"]
        found.append(
            Violation(
                rule="X-45",
                level="error",
                param="global_bs",
                message=f"BS differs ({_who_has_what('bs', sizes)}) while global_bs is 0; "
                f"pass global_bs = max_bs * ep_world_size = {needed} on every rank",
                value=0,
                limit=needed,
            )
        )
    if uneven and any(masking := [one["masks_a_token"] for one in statements]):
        ranks = [rank for rank, masks in enumerate(masking) if masks]
        found.append(
            Violation(
                rule="X-45",
                level="error",
                param="x_active_mask",
                message=f"BS differs ({_who_has_what('bs', sizes)}) while {_ranks(ranks)} masks tokens; "
                "with unequal BS every token must be active",
                value=tuple(ranks),
                limit="no masked token",
            )
        )
    return found


def _who_has_what(name: str, values: Sequence[int]) -> str:
    """``14 on ranks 0, 2-15, 16 on rank 1``, most frequent value first."""
    ranks_of: dict[int, list[int]] = {}
    for rank, value in enumerate(values):
        ranks_of.setdefault(value, []).append(rank)
    return ", ".join(
        f"{_shown(name, value)} on {_ranks(ranks)}"
        for value, ranks in sorted(ranks_of.items(), key=lambda item: (-len(item[1]), item[1]))
    )


def _shown(name: str, value: int) -> str:
    names = _NAMES.get(name)
    if names is None:
        return str(value)
    return repr(names[value]) if 0 <= value < len(names) else "something else"


def _ranks(ranks: Sequence[int]) -> str:
    """``rank 3`` or ``ranks 0-2, 5``."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], rank]
        else:
            runs.append([rank, rank])
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return f"rank {text}" if len(ranks) == 1 else f"ranks {text}"
