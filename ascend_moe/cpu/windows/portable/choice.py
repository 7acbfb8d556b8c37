"""What a rank remembers of its calls: whom its tokens chose, and which rows a dispatch brought it.

A combine nearly always brings home what a dispatch of a moment ago brought here, with the ids of that dispatch. Equal
bytes of ids, mask and handle say so, and cost a comparison; then nothing of what the dispatch found has to be found
again. When all ranks say so of the same dispatch, every row has come home: each arrived once, and is sent back once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

HANDLES_KEPT: Final = 4
"""Dispatches that may be under way before the first of them is combined as fast as the last one."""


class Rules(NamedTuple):
    """What decides, besides their values, whether ids and mask are legal, and which pairs become rows."""

    bs: int
    topk: int
    mask_dims: int
    ordered_mask: int
    moe_experts: int
    all_experts: int
    shared_experts: int
    max_bs: int


class Choice(NamedTuple):
    """The experts that this rank's tokens chose, found legal."""

    rules: Rules
    values: tuple[bytes, bytes]
    """Of ids and mask."""
    ids: NDArray[np.int32]
    """(BS, K)."""
    active: NDArray[np.bool_] | None
    """(BS, K) the pairs that take part; None: all."""
    travelling: NDArray[np.bool_] | None
    """(BS, slots) the pairs that become rows of an expert's rank; None: all."""


class Reader:
    """Reads what the tokens chose."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        table = np.empty((rules.bs, rules.topk + 1), np.uint32)
        table[:, rules.topk] = rules.all_experts
        self._ordered = table[:, : rules.topk]
        """The ids of each token in ascending order; the number of experts follows."""
        self._neighbours = table[:, :-1], table[:, 1:]

    def choice(self, values: tuple[bytes, bytes]) -> Choice | None:
        """Rules X-34, X-36 and X-37; None when one is broken."""
        rules = self.rules
        ids = np.frombuffer(values[0], np.int32).reshape(rules.bs, rules.topk)
        active: NDArray[np.bool_] | None = None
        if rules.mask_dims:
            shape = ids.shape if rules.mask_dims == 2 else ids.shape[:1]
            mask = np.frombuffer(values[1], np.bool_).reshape(shape)
            here = mask if mask.ndim == 1 else np.logical_or.reduce(mask, axis=1)
            count = int(here.sum())
            if rules.ordered_mask and not here[:count].all():
                return None
            if not mask.all():
                active = mask if mask.ndim == 2 else (np.arange(rules.bs) < count)[:, None]
                active = np.broadcast_to(active, ids.shape)
        if not self._are_distinct_experts(ids, active):
            return None
        return Choice(rules, values, ids, active, self._travelling(ids, active))

    def _are_distinct_experts(
        self, ids: NDArray[np.int32], active: NDArray[np.bool_] | None
    ) -> bool:
        if active is None:
            self._ordered[:] = ids  # as unsigned, -1 is too large
            self._ordered.sort(axis=1)
            return b"\0" not in np.less(*self._neighbours).tobytes()
        # An inactive pair equals nothing, and is no expert that could be wrong.
        if (ids[active].view(np.uint32) >= self.rules.all_experts).any():
            return False
        ordered = np.sort(np.where(active, ids, -1 - np.arange(ids.shape[1])), axis=1)
        return not (ordered[:, 1:] == ordered[:, :-1]).any()

    def _travelling(
        self, ids: NDArray[np.int32], active: NDArray[np.bool_] | None
    ) -> NDArray[np.bool_] | None:
        rules = self.rules
        if active is None and rules.all_experts == rules.moe_experts:
            return None
        found = np.empty((rules.bs, rules.topk + rules.shared_experts), np.bool_)
        found[:, : rules.topk] = ids < rules.moe_experts
        found[:, rules.topk :] = True
        if active is not None:
            found[:, : rules.topk] &= active
            found[:, rules.topk :] = active.any(axis=1, keepdims=True)
        return None if found.all() else found


class Handle(NamedTuple):
    """The rows that a dispatch brought to this rank."""

    dispatched: int
    """The barrier of that dispatch."""
    choice: Choice
    """Of the same call; not what the rows are."""
    triples: bytes
    """(rows, 3) int32, as they are in ``assist_info_for_combine``."""
    places: NDArray[np.int64]
    """(rows,): source, token and slot, counted through."""


def handle_of(
    handles: Sequence[Handle], rules: Rules, values: tuple[bytes, bytes], triples: bytes
) -> Handle | None:
    """The latest handle that has all of this."""
    for handle in reversed(handles):
        choice = handle.choice
        if handle.triples == triples and choice.values == values and choice.rules == rules:
            return handle
    return None
