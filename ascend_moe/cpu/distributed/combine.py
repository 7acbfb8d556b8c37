"""Combine over torch.distributed by native steps: rows go to the owners of their tokens and are added up there."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from ascend_moe.cpu.distributed.exchange import Exchange
from ascend_moe.cpu.distributed.steps import END, Far, Steps
from ascend_moe.cpu.windows.layout import SENT_WORDS
from ascend_moe.cpu.windows.repeated.combine import Combine
from ascend_moe.cpu.windows.repeated.prepared import Checked


class FarCombine(Steps, Combine):
    """Combine: a block is the places of rows (source, token, slot), and the rows."""

    def _set_layout(self, rows_per_token: int) -> None:
        super()._set_layout(rows_per_token)
        fields = self.fields
        fields.sent_at = 0  # rows stay where they arrive
        fields.lists_at = -(-self.windows.ranks * SENT_WORDS * 8 // 64) * 64
        self.needed = fields.lists_at + self.windows.ranks * 12 * fields.max_rows

    def __init__(self, far: Far, checked: Checked) -> None:
        super().__init__(far, checked)
        fields, ranks = self.fields, far.ranks
        self._sent = self._at(fields.sent_at, ranks * SENT_WORDS, np.int64).reshape(ranks, -1)
        lists = self._at(fields.lists_at, ranks * 3 * fields.max_rows, np.int32)
        self._lists = lists.reshape(ranks, -1, 3)
        self._row = np.dtype((np.void, fields.row_bytes))

    def _blocks(self) -> tuple[NDArray[np.uint8], list[int], list[int]]:
        fields, own, ranks = self.fields, self.far.rank, range(self.far.ranks)
        ends = (ctypes.c_int32 * fields.prefix_length).from_address(fields.send_counts)
        rows = ends[-1]
        self._sent[own] = rows, 0, 0, 0, 0
        if not rows:
            return self._outgoing.of(0), [0 for _ in ranks], [0 for _ in ranks]
        places = np.frombuffer((ctypes.c_int32 * (3 * rows)).from_address(fields.assist_info), "i4")
        places = places.reshape(rows, 3)
        memory = (ctypes.c_char * (rows * fields.row_bytes)).from_address(fields.expand_x)
        elements = np.frombuffer(memory, self._row)
        self._lists[own, :rows] = places
        owner = places[:, 0]
        rows_of = [(owner == rank).nonzero()[0] if rank != own else owner[:0] for rank in ranks]
        counts = list(map(len, rows_of))
        sizes = list(map(self._size, counts))
        blocks, end = self._outgoing.of(sum(sizes)), 0
        for chosen, size in zip(rows_of, sizes, strict=True):
            if not size:
                continue
            block, end = blocks[end : end + size], end + size
            at = 12 * len(chosen)
            block[:at] = places[chosen].reshape(-1).view(np.uint8)
            fetched = block[at : -len(END)].view(self._row)
            elements.take(chosen, out=fetched, mode="clip")
            block[-len(END) :] = END
        return blocks, sizes, counts

    def _size(self, rows: int) -> int:
        """Bytes of a block."""
        return int(rows * (12 + self.fields.row_bytes) + len(END)) if rows else 0

    def _sizes_of(self, said: NDArray[np.int64]) -> list[int]:
        return [self._size(rows) for rows in said[:, Exchange.ROWS].tolist()]

    def _take_in(self, said: NDArray[np.int64], blocks: list[NDArray[np.uint8]]) -> None:
        rows_of: list[int] = said[:, Exchange.ROWS].tolist()
        for source, (rows, block) in enumerate(zip(rows_of, blocks, strict=True)):
            if source == self.far.rank:
                continue
            if rows > self.fields.max_rows:
                self.reject(source)
            self._sent[source] = rows, bool(rows), 0, 0, rows * self.fields.row_bytes
            if rows:
                self._lists[source, :rows] = block[: 12 * rows].view(np.int32).reshape(rows, 3)
                self._known[2 * source] = 1
                self._known[2 * source + 1] = block.ctypes.data + 12 * rows
