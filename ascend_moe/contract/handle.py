"""The handle that dispatch gives to combine, and when a handle cannot be trusted (rule E-08).

Documents call ``assist_info_for_combine`` and ``ep_send_counts`` opaque. On hardware a handle of another call makes
combine read out of bounds or wait for rows that nobody sends; here every value that is used as an index is checked
first, and the error names the first wrong entry.

What combine reads on A3: the last prefix sum ``n`` of ``ep_send_counts`` and the triples (source rank, token, slot) of
the first n rows. On A2: all prefix sums, and the (BS, K) ordinals of the sender.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ascend_moe.contract.errors import Violation
from ascend_moe.contract.shapes import World, max_bs_of


def slots_of(world: World, ep_rank_id: int) -> int:
    """Length of the prefix sums: one entry per (local expert, source rank)."""
    return world.ep_world_size * world.experts_on(ep_rank_id)


def rows_received(world: World, call: Mapping[str, Any]) -> int:
    """How many rows of ``expand_x`` are this rank's own: the last prefix sum."""
    return int(call["ep_send_counts"][slots_of(world, call["ep_rank_id"]) - 1])


def handle_violations(world: World, call: Mapping[str, Any], *, product: str) -> list[Violation]:
    """Everything in this rank's own handle that combine must not use as an index.

    call: every parameter of combine with its default, shapes already checked.
    """
    own = rows_received(world, call)
    rows = call["expand_x"].shape[0]
    if not 0 <= own <= rows:
        return [
            _foreign(
                "ep_send_counts", f"says {own} rows were received, expand_x has {rows}", own, rows
            )
        ]
    if call["tp_world_size"] == 2 and call["tp_send_counts"] is not None:
        peer = int(call["tp_send_counts"][1 - call["tp_rank_id"]])
        if not 0 <= peer <= rows - own:
            text = f"says {peer} rows came from the TP peer, expand_x has {rows} of which {own} are own"
            return [_foreign("tp_send_counts", text, peer, rows - own)]
    return _ordinals(world, call) if product == "A2" else _triples(world, call, own)


def _triples(world: World, call: Mapping[str, Any], own: int) -> list[Violation]:
    bs, topk = call["expert_ids"].shape
    max_bs = max_bs_of(bs, ep_world_size=world.ep_world_size, global_bs=call["global_bs"])
    columns = (
        ("source rank", world.ep_world_size),
        ("token", max_bs),
        ("slot", topk + world.shared_expert_num),
    )
    triples = call["assist_info_for_combine"][: 3 * own].reshape(own, 3)
    found = []
    for column, (name, limit) in enumerate(columns):
        values = triples[:, column]
        wrong = ((values < 0) | (values >= limit)).nonzero()
        if len(wrong):
            row = int(wrong[0])
            value = int(values[row])
            text = f"row {row} has {name} {value}, must be in [0, {limit})"
            found.append(_foreign("assist_info_for_combine", text, value, limit))
    return found


def _ordinals(world: World, call: Mapping[str, Any]) -> list[Violation]:
    prefix = call["ep_send_counts"][: slots_of(world, call["ep_rank_id"])]
    falling = (prefix[1:] < prefix[:-1]).nonzero()
    if int(prefix[0]) < 0 or len(falling):
        at = int(falling[0]) + 1 if len(falling) else 0
        return [
            _foreign(
                "ep_send_counts",
                f"falls at entry {at}, prefix sums never do",
                int(prefix[at]),
                ">= 0, rising",
            )
        ]
    bs, topk = call["expert_ids"].shape
    ordinals = call["assist_info_for_combine"][: bs * topk]
    wrong = ((ordinals < 0) | (ordinals >= max(bs * topk, 1))).nonzero()
    if len(wrong):
        value = int(ordinals[int(wrong[0])])
        text = f"entry {int(wrong[0])} has ordinal {value}, must be in [0, {bs * topk})"
        return [_foreign("assist_info_for_combine", text, value, bs * topk)]
    return []


def missing_row(rank: int, token: int, slot: int, count: int) -> Violation:
    """No rank has a row for an active (token, slot) of ``rank``: hardware would wait for it for ever."""
    text = f"no rank sent a row for token {token}, k {slot} of rank {rank} ({count} such pairs)"
    return _foreign("assist_info_for_combine", text, count, 0)


def doubled_row(rank: int, token: int, slot: int, count: int) -> Violation:
    """Two rows claim the same (token, slot)."""
    text = f"two rows claim token {token}, k {slot} of rank {rank} ({count} such rows)"
    return _foreign("assist_info_for_combine", text, count, 0)


def _foreign(param: str, text: str, value: object, limit: object) -> Violation:
    message = f"{text}; combine needs the outputs of the dispatch of the same tokens"
    return Violation(
        rule="E-08", level="error", param=param, message=message, value=value, limit=limit
    )
