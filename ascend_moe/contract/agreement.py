"""What the ranks of one call must agree about, and how a disagreement is told (rules X-08, X-40, X-45, E-01, E-10).

No rank can check this alone, and a rank that differs makes the exchange hang or misread its windows. Every rank
makes a *statement*: a fixed list of integers. Executors exchange the statements before anything else and compare
them with `disagreements`; the comparison is the same on every rank, so all of them raise the same error.

Documented to agree (op-plugin `d1c6186d`, both operators): ep_world_size, moe_expert_num, expert_shard_type,
shared_expert_num, shared_expert_rank_num, global_bs, tp_world_size. The rest of the statement is what the rows on the
link are made of: a rank that differs there would misread its peers' rows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ascend_moe.contract.errors import Violation
from ascend_moe.contract.limits import PATHS
from ascend_moe.contract.path import PCIE, ROCE
from ascend_moe.contract.signature import OPERATORS
from ascend_moe.contract.window import read_hccl_buffsize

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
DTYPES: Final = ("bfloat16", "float16", "int32")
ALGORITHMS: Final = ("", "fullmesh", "fullmesh_v1", "fullmesh_v2", "hierarchy")
FIELDS: Final = (
    "operator",
    "ep_rank_id",
    "tp_rank_id",
    "hccl_buffsize",
    "bs",
    "masks_a_token",
    "H",
    "K",
    "dtype",
    "path",
    *ATTRIBUTES,
)
"""Names of the integers of a statement, in the order in which they travel."""

_PARAM: Final = {"hccl_buffsize": "HCCL_BUFFSIZE", "path": "comm_alg"}
_HINT: Final = {"hccl_buffsize": " (MB)", "path": f" (on A2 {PCIE} and {ROCE} also select it)"}

UNKNOWN: Final = -(2**31)
"""A size that a broken call does not have; the rank that made it reports what is wrong."""

_MUST_AGREE: Final = ("operator", *ATTRIBUTES, "path", "H", "K", "dtype")
_NAMES: Final[Mapping[str, Sequence[str]]] = {
    "operator": OPERATORS,
    "dtype": DTYPES,
    "comm_alg": ALGORITHMS,
    "path": PATHS,
}


def statement(
    op: str, call: Mapping[str, Any], *, path: str | None = None, values: bool = True
) -> dict[str, int]:
    """The statement of one rank.

    call:   every parameter of the operator, defaults filled in
    path:   full mesh, fullmesh_v2 or hierarchy, where that is decided; on A2 variables select it, not only comm_alg
    values: whether tensor contents may be read (that is a synchronisation on a device)
    """
    tokens = call["x" if op == "dispatch" else "expand_x"]
    mask = call["x_active_mask"]
    bs, topk = _two(call["expert_ids"].shape)
    fields = {
        "operator": OPERATORS.index(op),
        "ep_rank_id": call["ep_rank_id"],
        "tp_rank_id": call["tp_rank_id"],
        "hccl_buffsize": read_hccl_buffsize(os.environ).mb,
        "bs": bs,
        "masks_a_token": int(values and mask is not None and not bool(mask.all())),
        "H": _two(tokens.shape)[1],
        "K": topk,
        "dtype": _index(DTYPES, str(tokens.dtype).removeprefix("torch.")),
        "path": UNKNOWN if path is None else PATHS.index(path),
    }
    fields.update((name, call.get(name, 0)) for name in ATTRIBUTES)
    fields["comm_alg"] = _index(ALGORITHMS, call["comm_alg"])
    return fields


def _two(shape: Sequence[int]) -> tuple[int, int]:
    return (shape[0], shape[1]) if len(shape) == 2 else (UNKNOWN, UNKNOWN)


def _index(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else -1


def disagreements(
    statements: Sequence[Mapping[str, int]],
    *,
    rank_param: str | None = "ep_rank_id",
    names: Sequence[int] | None = None,
) -> list[Violation]:
    """All rules that the statements of a group break together; the position in the list is the rank in the group.

    names: what the ranks are called in messages, where that is not their position
    rank_param: the parameter that must equal that position: ``ep_rank_id`` in an EP group (X-08), ``tp_rank_id`` in
        a TP pair (E-10), None where the list is no group.
    """
    names = range(len(statements)) if names is None else names
    found = _wrong_ranks(statements, rank_param, names) if rank_param else []
    for name in (*_MUST_AGREE, "hccl_buffsize"):
        values = [one[name] for one in statements]
        if len(set(values) - {UNKNOWN}) < 2:
            continue
        if name == "path" and any(
            one["comm_alg"] != statements[0]["comm_alg"] for one in statements
        ):
            continue  # told as comm_alg
        window = name == "hccl_buffsize"
        found.append(
            Violation(
                rule="E-01" if window else "X-40",
                level="error",
                param=_PARAM.get(name, name),
                message=f"ranks disagree: {_who_has_what(name, values, names)}{_HINT.get(name, '')}; "
                "it must be the same on all ranks",
                value=tuple(values),
                limit="the same on all ranks",
            )
        )
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
                message=f"BS differs ({_who_has_what('bs', sizes, names)}) while global_bs is 0; "
                f"pass global_bs = max_bs * ep_world_size = {needed} on every rank",
                value=0,
                limit=needed,
            )
        )
    if uneven and any(masking := [one["masks_a_token"] for one in statements]):
        ranks = [names[rank] for rank, masks in enumerate(masking) if masks]
        found.append(
            Violation(
                rule="X-45",
                level="error",
                param="x_active_mask",
                message=f"BS differs ({_who_has_what('bs', sizes, names)}) while {_ranks(ranks)} masks tokens; "
                "with unequal BS every token must be active",
                value=tuple(ranks),
                limit="no masked token",
            )
        )
    return found


def refusal_of(who: str, rank: int, reason: str) -> Violation:
    """What the others raise when a rank refuses the call.

    reason: that rank's first violation as text, ``X-10 error moe_expert_num: ...``; its rule becomes theirs.
    """
    rule, _, text = reason.partition(" ")
    message = f"{who} {rank} refuses the call: {text.removeprefix('error ')}"
    return Violation(rule, "error", "group_ep", message, rank, "no refusal")


def _wrong_ranks(
    statements: Sequence[Mapping[str, int]], param: str, names: Sequence[int]
) -> list[Violation]:
    given = [one[param] for one in statements]
    if given == list(range(len(given))):
        return []
    wrong = [names[rank] for rank, value in enumerate(given) if value != rank]
    message = (
        f"is {_who_has_what(param, given, names)}; every rank must pass its own index in the group, "
        f"wrong on {_ranks(wrong)}"
    )
    rule = "X-08" if param == "ep_rank_id" else "E-10"
    return [Violation(rule, "error", param, message, tuple(given), tuple(range(len(given))))]


def _who_has_what(name: str, values: Sequence[int], names: Sequence[int]) -> str:
    """``14 on ranks 0, 2-15, 16 on rank 1``, most frequent value first."""
    ranks_of: dict[int, list[int]] = {}
    for rank, value in zip(names, values, strict=True):
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
