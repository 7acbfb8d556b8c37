"""Combine: see ``native/combine.h``. Here the rows that stay on their rank are copied to their places as well."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ascend_moe.cpu.windows.fields import Code
from ascend_moe.cpu.windows.layout import SENT_WORDS
from ascend_moe.cpu.windows.portable.arrays import (
    array,
    bytes_of,
    copy,
    whole_rows,
    whole_rows_of,
)
from ascend_moe.cpu.windows.portable.choice import Handle, handle_of
from ascend_moe.cpu.windows.portable.steps import Steps
from ascend_moe.cpu.windows.portable.total import blocks_of, write_totals

_ROWS, _MEMORY, _, _OFFSET, _SIZE, _DISPATCHED = range(SENT_WORDS)
"""Of what a rank sends."""


class _Views(NamedTuple):
    own_rows: tuple[Tensor, ...]
    """(tokens, slots, H): of this rank's tokens, in blocks: see `total.blocks_of`."""
    places: NDArray[np.void]
    """(ranks * max BS * slots,): the rows of all, each one element."""
    sent: NDArray[np.int64]
    """(ranks, 6): see `layout.SENT_WORDS`."""
    lists: NDArray[np.int32]
    """(ranks, 3 * rows)."""
    own_list_at: int
    """Address."""


class CombineSteps(Steps):
    """Rows go to their places (owner, token, slot); the owner adds up those of a token."""

    handle: Handle | None
    """The dispatch whose rows these are; None: that is not known."""
    triples: bytes
    """(rows, 3) int32."""
    places: NDArray[np.int64]
    """Where the rows of the call go."""

    def __init__(self, call: Any) -> None:
        super().__init__(call)
        self.blocks = blocks_of(self.fields.bs, self.slots, self.fields.hidden)

    def _cut(self, half: Tensor) -> _Views:
        fields, own = self.fields, self.own
        shape = (self.ranks, fields.max_bs, self.slots, fields.hidden)
        rows = array(half, fields.rows_at, self.outputs[0].dtype, shape)
        sent = array(half, fields.sent_at, torch.int64, (self.ranks, SENT_WORDS)).numpy()
        lists = array(half, fields.lists_at, torch.int32, (self.ranks, 3 * fields.max_rows))
        places = whole_rows(rows.view(torch.int16).numpy().reshape(-1, fields.hidden))
        own_rows = rows[own, : fields.bs].chunk(self.blocks)
        return _Views(own_rows, places, sent, lists.numpy(), lists[own].data_ptr())

    def valid(self) -> bool:
        fields, inputs = self.fields, self.inputs
        counts = inputs["ep_send_counts"].data_ptr()
        rows = ctypes.c_int32.from_address(counts + 4 * (fields.prefix_length - 1)).value
        if not 0 <= rows <= min(fields.row_limit, fields.max_rows):
            return False
        self.triples = bytes_of(inputs["assist_info_for_combine"], 12 * rows)
        values = self.chosen_values()
        self.handle = handle_of(self.call.windows.handles, self.rules, values, self.triples)
        if self.handle is not None:
            self.places = self.handle.places
            self.adopt(self.handle.choice)
            return True
        return self._triples_are_legal() and self.choose(values)

    def _triples_are_legal(self) -> bool:
        triples = np.frombuffer(self.triples, np.uint32).reshape(-1, 3)
        source, token, slot = columns = triples.T.astype(np.int64)  # as unsigned, -1 is too large
        if len(triples):
            most_source, most_token, most_slot = columns.max(axis=1).tolist()
            if most_source >= self.ranks or most_token >= self.fields.max_bs:
                return False
            if most_slot >= self.slots:
                return False
        self.places = (source * self.fields.max_bs + token) * self.slots + slot
        return True

    def publish(self, views: _Views) -> None:
        rows = len(self.places)
        dispatched = 0 if self.handle is None else self.handle.dispatched
        views.sent[self.own] = rows, 0, 0, 0, 0, dispatched
        copy(views.own_list_at, self.triples, len(self.triples))
        views.places[self.places] = whole_rows_of(self.inputs["expand_x"], rows)

    def receive(self, views: _Views) -> int:
        sent = views.sent.tolist()
        if self.handle is None or any(
            one[_DISPATCHED] != self.handle.dispatched or one[_MEMORY] for one in sent
        ):
            return self._find_rows(views, sent)
        self.fields.doubled_count = self.fields.missing_count = 0
        write_totals(self, views.own_rows)
        return Code.DONE

    def _find_rows(self, views: _Views, sent: list[list[int]]) -> int:
        """By the lists of all ranks: whether each place has its row, and whether one has two."""
        fields = self.fields
        counts = [one[_ROWS] for one in sent]
        for sender, count in enumerate(counts):
            if not 0 <= count <= fields.max_rows:
                fields.detail = sender
                return Code.CORRUPT
        listed = np.concatenate(
            [row[: 3 * count] for row, count in zip(views.lists, counts, strict=True)]
        )
        mine = np.flatnonzero(listed[::3] == self.own)
        first = mine * 3 + 1
        token, slot = listed[first].astype(np.int64), listed[first + 1].astype(np.int64)
        bad = (token < 0) | (slot.view(np.uint64) >= self.slots)
        if bad.any():
            fields.detail = _sender_of(int(mine[bad.argmax()]), counts)
            return Code.CORRUPT
        place = token * self.slots + slot
        if fields.max_bs > fields.bs:  # a token that this rank does not have is never read
            known = token < fields.bs
            mine, place = mine[known], place[known]
        in_place = [sender for sender, one in enumerate(sent) if one[_MEMORY]]
        for sender in in_place:
            code = self._bring(views, sender, sent, mine, place)
            if code:
                return code
        complete = self._is_complete(np.bincount(place, minlength=fields.bs * self.slots))
        if complete:
            write_totals(self, views.own_rows)
        if in_place:
            return Code.IN_PLACE
        return Code.DONE if complete else Code.BAD_ROWS

    def _is_complete(self, claims: NDArray[np.int64]) -> bool:
        """Whether each place has its row, and none has two; else says which."""
        fields, travelling = self.fields, self.choice.travelling
        wanted = np.ones(len(claims), bool) if travelling is None else travelling.reshape(-1)
        doubled, missing = np.flatnonzero(claims > 1), np.flatnonzero(wanted & (claims == 0))
        fields.doubled_count, fields.missing_count = len(doubled), len(missing)
        fields.doubled = int(doubled[0]) if len(doubled) else 0
        fields.missing = int(missing[0]) if len(missing) else 0
        return not (len(doubled) or len(missing))

    def _bring(
        self,
        views: _Views,
        sender: int,
        sent: list[list[int]],
        mine: NDArray[np.int64],
        place: NDArray[np.int64],
    ) -> int:
        """Copies rows from shared memory of their sender to their places here."""
        fields = self.fields
        fields.detail = sender
        one = sent[sender]
        known = self.call.windows.foreign.get((sender, one[_MEMORY]))
        if known is None:
            return Code.UNMAPPED
        begin, end = one[_OFFSET], one[_OFFSET] + one[_ROWS] * fields.row_bytes
        if begin < 0 or end > one[_SIZE]:
            return Code.CORRUPT
        rows = whole_rows(known.bytes[begin:end].view(-1, fields.row_bytes).numpy())
        before = sum(sent[earlier][_ROWS] for earlier in range(sender))
        here = (mine >= before) & (mine < before + one[_ROWS])
        to = self.own * fields.max_bs * self.slots + place[here]
        views.places[to] = rows[mine[here] - before]
        return Code.DONE


def _sender_of(row: int, counts: list[int]) -> int:
    return int(np.searchsorted(np.cumsum(counts), row, side="right"))
