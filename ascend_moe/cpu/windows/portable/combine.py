"""Combine: see ``native/combine.h``. Here the rows that stay on their rank are copied to their places as well."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ascend_moe.cpu.windows.fields import Code
from ascend_moe.cpu.windows.layout import SENT_WORDS
from ascend_moe.cpu.windows.portable.arrays import array, whole_rows
from ascend_moe.cpu.windows.portable.steps import Steps
from ascend_moe.cpu.windows.portable.total import write_totals


class _Views(NamedTuple):
    rows: Tensor
    """(ranks, max BS, slots, H)."""
    places: NDArray[np.void]
    """The same rows, flat, each one element."""
    sent: NDArray[np.int64]
    """(ranks, 5): see `layout.SENT_WORDS`."""
    lists: NDArray[np.int32]
    """(ranks, 3 * rows)."""


class CombineSteps(Steps):
    """Rows go to their places (owner, token, slot); the owner adds up those of a token."""

    places: NDArray[np.int64]
    """Where the rows of the call go."""

    def _cut(self, half: Tensor) -> _Views:
        fields = self.fields
        shape = (self.ranks, fields.max_bs, self.slots, fields.hidden)
        rows = array(half, fields.rows_at, self.call.outputs[0].dtype, shape)
        sent = array(half, fields.sent_at, torch.int64, (self.ranks, SENT_WORDS))
        lists = array(half, fields.lists_at, torch.int32, (self.ranks, 3 * fields.max_rows))
        places = whole_rows(rows.view(-1, fields.hidden))
        return _Views(rows, places, sent.numpy(), lists.numpy())

    def valid(self) -> bool:
        fields, inputs = self.fields, self.call.inputs
        rows = int(inputs["ep_send_counts"][fields.prefix_length - 1])
        if not 0 <= rows <= min(fields.row_limit, fields.max_rows):
            return False
        self.rows = inputs["expand_x"][:rows]
        self.triples = inputs["assist_info_for_combine"].numpy()[: 3 * rows]
        triples = self.triples.view(np.uint32).reshape(rows, 3)
        source, token, slot = columns = triples.T.astype(np.int64)  # as unsigned, -1 is too large
        if rows:
            most_source, most_token, most_slot = columns.max(axis=1).tolist()
            if most_source >= self.ranks or most_token >= fields.max_bs or most_slot >= self.slots:
                return False
        self.places = (source * fields.max_bs + token) * self.slots + slot
        return self.choices_are_legal()

    def publish(self) -> None:
        views = self.views()
        views.sent[self.own] = len(self.places), 0, 0, 0, 0
        views.lists[self.own, : self.triples.size] = self.triples
        views.places[self.places] = whole_rows(self.rows)

    def receive(self) -> int:
        fields, views = self.fields, self.views()
        counts = views.sent[:, 0].tolist()
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
        in_place = views.sent[:, 1]
        if in_place.any():
            for sender in np.flatnonzero(in_place).tolist():
                code = self._bring(sender, counts, mine, place)
                if code:
                    return code
        claims = np.bincount(place, minlength=fields.bs * self.slots)
        travelled = self.pairs_that_travel()
        complete = self._is_complete(claims, travelled.reshape(-1))
        if complete:
            write_totals(self, views.rows[self.own, : fields.bs], travelled)
        if in_place.any():
            return Code.IN_PLACE
        return Code.DONE if complete else Code.BAD_ROWS

    def _is_complete(self, claims: NDArray[np.int64], travelled: NDArray[np.bool_]) -> bool:
        """Whether each place has its row, and none has two; else says which."""
        fields = self.fields
        fields.doubled_count = fields.missing_count = 0
        if (claims == travelled).all():
            return True
        doubled, missing = np.flatnonzero(claims > 1), np.flatnonzero(travelled & (claims == 0))
        fields.doubled_count, fields.missing_count = len(doubled), len(missing)
        fields.doubled = int(doubled[0]) if len(doubled) else 0
        fields.missing = int(missing[0]) if len(missing) else 0
        return not (len(doubled) or len(missing))

    def _bring(
        self, sender: int, counts: list[int], mine: NDArray[np.int64], place: NDArray[np.int64]
    ) -> int:
        """Copies rows from shared memory of their sender to their places here."""
        fields, views = self.fields, self.views()
        _, number, _, offset, size = views.sent[sender].tolist()
        fields.detail = sender
        known = self.call.windows.foreign.get((sender, number))
        if known is None:
            return Code.UNMAPPED
        end = offset + counts[sender] * fields.row_bytes
        if offset < 0 or end > size:
            return Code.CORRUPT
        rows = known.bytes[offset:end].view(-1, fields.row_bytes)
        before = sum(counts[:sender])
        here = (mine >= before) & (mine < before + counts[sender])
        to = self.own * fields.max_bs * self.slots + place[here]
        views.places[to] = whole_rows(rows)[mine[here] - before]
        return Code.DONE


def _sender_of(row: int, counts: list[int]) -> int:
    return int(np.searchsorted(np.cumsum(counts), row, side="right"))
