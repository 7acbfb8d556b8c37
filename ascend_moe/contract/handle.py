"""The handle that dispatch gives to combine, and when a handle cannot be trusted (rule E-08).

Documents call ``assist_info_for_combine`` and ``ep_send_counts`` opaque. On hardware a handle of another call makes
combine read out of bounds or wait for rows that nobody sends; here every value that is used as an index is checked
first, and the error names the first wrong entry.

What combine reads on A3: the last prefix sum ``n`` of ``ep_send_counts`` and the triples (source rank, token, slot) of
the first n rows. On A2: all prefix sums, and the (BS, K) ordinals of the sender. In hierarchy, on both: all prefix
sums, behind them in ``ep_send_counts`` the `row_places`, and ``expand_scales``; ``assist_info_for_combine`` is unused.
The operators' own tables there are opaque and differ between kernels, so these are ours, in the space of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ascend_moe.contract.errors import Violation
from ascend_moe.contract.limits import FULLMESH, HIERARCHY
from ascend_moe.contract.shapes import World, max_bs_of


def slots_of(world: World, ep_rank_id: int) -> int:
    """Length of the prefix sums: one entry per (local expert, source rank)."""
    return world.ep_world_size * world.experts_on(ep_rank_id)


def rows_received(world: World, call: Mapping[str, Any]) -> int:
    """How many rows of ``expand_x`` are this rank's own: the last prefix sum."""
    return int(call["ep_send_counts"][slots_of(world, call["ep_rank_id"]) - 1])


def row_places(counts: Any, slots: int, rows: int) -> Any:
    """Hierarchy: (token, place) of each of the first ``rows`` rows, an int32 view (rows, 2) into long counts.

    place: position, in [0, K), of the row in the order in which the rows of its token are added
    slots: length of the prefix sums, behind which the places begin. There are at least as many words as A rows need:
        ``2 * global_bs * K * (ep_world_size / 8)``.
    """
    return counts[slots : slots + 2 * rows].view(-1, 2)


def handle_violations(
    world: World, call: Mapping[str, Any], *, product: str, path: str = FULLMESH
) -> list[Violation]:
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
    if path == HIERARCHY:
        return _tables(world, call, own)
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
    return _outside("assist_info_for_combine", triples, columns)


def _outside(param: str, table: Any, columns: tuple[tuple[str, int], ...]) -> list[Violation]:
    """The first entry of each column that is not in [0, limit)."""
    found = []
    for column, (name, limit) in enumerate(columns):
        values = table[:, column]
        wrong = ((values < 0) | (values >= limit)).nonzero()
        if len(wrong):
            row = int(wrong[0])
            value = int(values[row])
            text = f"row {row} has {name} {value}, must be in [0, {limit})"
            found.append(_foreign(param, text, value, limit))
    return found


def _tables(world: World, call: Mapping[str, Any], own: int) -> list[Violation]:
    found = _falling(world, call)
    bs, topk = call["expert_ids"].shape
    max_bs = max_bs_of(bs, ep_world_size=world.ep_world_size, global_bs=call["global_bs"])
    slots = slots_of(world, call["ep_rank_id"])
    room = (len(call["ep_send_counts"]) - slots) // 2
    weights = 0 if call["expand_scales"] is None else call["expand_scales"].numel()
    if own > room:
        text = f"says {own} rows were received, its tables have room for {room}"
        found.append(_foreign("ep_send_counts", text, own, room))
    else:
        places = row_places(call["ep_send_counts"], slots, own)
        found += _outside("ep_send_counts", places, (("token", max_bs), ("place", topk)))
    if own > weights:
        found.append(_foreign("expand_scales", f"has {weights} of {own} weights", weights, own))
    return found


def _falling(world: World, call: Mapping[str, Any]) -> list[Violation]:
    prefix = call["ep_send_counts"][: slots_of(world, call["ep_rank_id"])]
    falling = (prefix[1:] < prefix[:-1]).nonzero()
    if int(prefix[0]) >= 0 and not len(falling):
        return []
    at = int(falling[0]) + 1 if len(falling) else 0
    text = f"falls at entry {at}, prefix sums never do"
    return [_foreign("ep_send_counts", text, int(prefix[at]), ">= 0, rising")]


def _ordinals(world: World, call: Mapping[str, Any]) -> list[Violation]:
    found = _falling(world, call)
    if found:
        return found
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
