"""Dispatch over torch.distributed by native steps: each rank gets the tokens that it wants, once each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ascend_moe.cpu.distributed.exchange import Exchange
from ascend_moe.cpu.distributed.steps import BS, END, Far, Steps
from ascend_moe.cpu.windows.repeated.dispatch import Dispatch
from ascend_moe.cpu.windows.repeated.prepared import Checked


class FarDispatch(Steps, Dispatch):
    """Dispatch: a block is what the tokens chose, their weights, the scales of rows, and rows."""

    def _set_layout(self, rows_per_token: int) -> None:
        # Smooth factors make a row per pair; whether a rank has them is its own affair.
        super()._set_layout(self._sizes.slots if self.fields.quantised else 1)

    def __init__(self, far: Far, checked: Checked) -> None:
        super().__init__(far, checked)
        fields, ranks = self.fields, far.ranks
        self._slots = self._sizes.slots
        places, rows = fields.max_bs * self._slots, fields.max_bs * fields.layout_rows_per_token
        self._lanes = self._at(fields.lanes_at, ranks * places, np.int32).reshape(ranks, places)
        self._given = self._at(fields.given_at, ranks * 2, np.int32).reshape(ranks, 2)
        weights = self._at(fields.weights_at, ranks * fields.max_bs * fields.topk, np.float32)
        self._weights = weights.reshape(ranks, -1)
        self._scales = self._at(fields.scales_at, ranks * rows, np.float32).reshape(ranks, rows)
        row = np.dtype((np.void, fields.row_bytes))
        self._rows = self._at(fields.rows_at, ranks * rows, row).reshape(ranks, rows)
        lanes = np.arange(fields.moe_experts + fields.shared_experts + 1)
        at = fields.shared_ranks + lanes // max(fields.local_experts, 1)
        shared = (lanes - fields.moe_experts) * fields.replicas + far.rank % fields.replicas
        self._rank_of_lane = np.where(lanes < fields.moe_experts, at, shared)
        self._rank_of_lane[-1] = ranks  # nobody: lane -1

    def _wanted(self, lanes: NDArray[np.int32], smooth: bool) -> NDArray[np.bool_]:
        """(ranks, rows) which rows of the sender of these lanes each rank wants."""
        rank = self._rank_of_lane[lanes]
        width = 1 if smooth else self._slots
        found = np.zeros((self.far.ranks + 1, len(lanes) // width), np.bool_)
        found[rank, np.arange(len(lanes)) // width] = True
        return found[:-1]

    def _blocks(self) -> tuple[NDArray[np.uint8], list[int], list[int]]:
        fields, own = self.fields, self.far.rank
        lanes = self._lanes[own, : fields.bs * self._slots]
        weighted, smooth = bool(fields.expert_scales), bool(fields.smooth)
        wanted = self._wanted(lanes, smooth)
        wanted[own] = False
        parts: list[NDArray[Any]] = [lanes]
        if weighted:
            parts.append(self._weights[own, : fields.bs * fields.topk])
        head = np.concatenate([part.view(np.uint8) for part in parts])
        rows_of = [one.nonzero()[0] for one in wanted]
        words = [len(rows) << 2 | smooth << 1 | weighted for rows in rows_of]
        sizes = [self._size(fields.bs, word) for word in words]
        blocks, end = self._outgoing.of(sum(sizes)), 0
        for rows, size in zip(rows_of, sizes, strict=True):
            if not size:
                continue
            block, end = blocks[end : end + size], end + size
            block[: len(head)] = head
            at = len(head)
            if fields.carries_scales:
                block[at : at + 4 * len(rows)] = self._scales[own, rows].view(np.uint8)
                at += 4 * len(rows)
            fetched = block[at : -len(END)].view(self._rows.dtype)
            self._rows[own].take(rows, out=fetched, mode="clip")
            block[-len(END) :] = END
        return blocks, sizes, words

    def _size(self, bs: int, word: int) -> int:
        """Bytes of the block that a statement announces."""
        fields, rows, weighted = self.fields, word >> 2, word & 1
        head = 4 * bs * (self._slots + weighted * fields.topk)
        per_row = fields.row_bytes + 4 * bool(fields.carries_scales)
        return int(head + rows * per_row + len(END)) if rows else 0

    def _sizes_of(self, said: NDArray[np.int64]) -> list[int]:
        return [self._size(bs, word) for bs, word in said[:, [BS, Exchange.ROWS]].tolist()]

    def _take_in(self, said: NDArray[np.int64], blocks: list[NDArray[np.uint8]]) -> None:
        fields, slots = self.fields, self._slots
        words = said[:, Exchange.ROWS]
        rows, smooth = words >> 2, (words & 2) > 0
        self._given[:, 0], self._given[:, 1] = words & 1, smooth
        behind = []
        for source, block in enumerate(blocks):
            lanes, used = self._lanes[source], int(said[source, BS]) * slots if len(block) else 0
            if used > len(lanes) or (smooth[source] and not fields.quantised):
                self.reject(source)
            if source != self.far.rank:
                lanes[:used] = block[: 4 * used].view(np.int32)
                lanes[used:] = -1
            behind.append(4 * used)
        wanted, by_token = self._wanted_here()
        counts = np.where(smooth, wanted.sum(axis=1), by_token.sum(axis=1))
        counts[self.far.rank] = 0
        if (counts != rows).any():
            self.reject(int((counts != rows).argmax()))
        for source, block in enumerate(blocks):
            if not len(block):
                continue
            here, end = wanted[source] if smooth[source] else by_token[source], behind[source]
            if words[source] & 1:
                count = behind[source] // 4 // slots * fields.topk
                self._weights[source, :count] = block[end : end + 4 * count].view(np.float32)
                end += 4 * count
            if fields.carries_scales:
                count = int(rows[source])
                self._scales[source, : len(here)][here] = block[end : end + 4 * count].view("f4")
                end += 4 * count
            self._rows[source, : len(here)][here] = block[end : -len(END)].view(self._rows.dtype)

    def _wanted_here(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which pairs of all ranks become rows here, and of which tokens; both (ranks, ...)."""
        fields, own, lanes = self.fields, self.far.rank, self._lanes
        if own < fields.shared_ranks:
            here = lanes == fields.moe_experts + own // fields.replicas
            here[np.arange(self.far.ranks) % fields.replicas != own % fields.replicas] = False
        else:
            first = (own - fields.shared_ranks) * fields.local_experts
            here = (lanes >= first) & (lanes < first + fields.local_experts)
        return here, here.reshape(self.far.ranks, -1, self._slots).any(axis=2)
