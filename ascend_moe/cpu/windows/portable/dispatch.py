"""Dispatch: see ``native/dispatch.h``."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ascend_moe.cpu.windows.fields import Code
from ascend_moe.cpu.windows.portable.arrays import array, pairs_as_words
from ascend_moe.cpu.windows.portable.steps import Steps
from ascend_moe.reference.quant import quantise_rows
from ascend_moe.reference.routing import ordinals_at_sender

_BLOCK_ELEMENTS = 1 << 17
"""That are quantised at a time: the fp32 values between the steps stay in a core's cache."""


class _Views(NamedTuple):
    rows: Tensor
    """(all ranks' rows, H)."""
    scales: NDArray[np.float32]
    """(all ranks' rows,)."""
    weights: NDArray[np.float32]
    """(ranks, max BS, K)."""
    table: NDArray[np.int32]
    """(ranks, 2 + lanes + 1): has weights, rows by pair, then where each lane begins."""
    pairs: NDArray[np.int64]
    """(ranks, max BS * slots): token and slot in one word."""


class DispatchSteps(Steps):
    """A lane is an expert as a sender sees it; a sender sorts its pairs by lane, so each receiver's are neighbours."""

    def __init__(self, call: Any) -> None:
        super().__init__(call)
        fields, ranks = self.fields, self.ranks
        self.lanes = fields.moe_experts + fields.shared_experts
        self._lane_type = (
            np.int16 if self.lanes < 1 << 15 else np.int64
        )  # numpy sorts int16 by radix
        token, slot = np.indices((fields.bs, self.slots), dtype=np.int32).reshape(2, -1)
        self._every_pair_in_words = pairs_as_words(np.stack([token, slot], axis=1))
        self._pair_limits = np.array([fields.max_bs, self.slots], np.uint32)
        self._sources = np.tile(np.arange(ranks), max(fields.local_experts, 1))
        """Of the segments that arrive here: by local expert, then by source."""

    def _cut(self, half: Tensor) -> _Views:
        fields, ranks = self.fields, self.ranks
        self.rows_per_rank = fields.max_bs * fields.layout_rows_per_token
        dtype = self.call.outputs[0].dtype
        rows, pairs = ranks * self.rows_per_rank, fields.max_bs * self.slots
        weights = (ranks, fields.max_bs, self.topk)
        at = fields.pairs_at
        return _Views(
            rows=array(half, fields.rows_at, dtype, (rows, fields.hidden)),
            scales=array(half, fields.scales_at, torch.float32, (rows,)).numpy(),
            weights=array(half, fields.weights_at, torch.float32, weights).numpy(),
            table=array(half, fields.table_at, torch.int32, (ranks, self.lanes + 3)).numpy(),
            pairs=pairs_as_words(array(half, at, torch.int32, (ranks, pairs, 2)).numpy()),
        )

    def valid(self) -> bool:
        return self.choices_are_legal()

    def publish(self) -> None:
        fields, views, own, inputs = self.fields, self.views(), self.own, self.call.inputs
        x, expert_scales = inputs["x"], inputs.get("expert_scales")
        lane = self._lane_of_pairs()
        order = np.argsort(lane, kind="stable")
        table = views.table[own]
        table[0], table[1], table[2] = expert_scales is not None, fields.smooth, 0
        np.cumsum(np.bincount(lane, minlength=self.lanes + 1)[: self.lanes], out=table[3:])
        sent = order[: table[-1]]
        views.pairs[own, : len(sent)] = self._every_pair_in_words[sent]
        first = own * self.rows_per_rank
        if fields.smooth:
            at = lane[sent].astype(np.int64)  # shared experts come first in `scales`
            factors = np.where(
                at < fields.moe_experts, at + fields.shared_experts, at - fields.moe_experts
            )
            token = torch.from_numpy(sent // self.slots)
            self._quantise(first, x, token, inputs["scales"], torch.from_numpy(factors))
        elif fields.quantised:
            self._quantise(first, x)
        else:
            views.rows[first : first + fields.bs].copy_(x)
            if fields.carries_scales:
                views.scales[first : first + fields.bs] = inputs["scales"].numpy()
        if expert_scales is not None:
            views.weights[own, : fields.bs] = expert_scales.numpy()

    def _lane_of_pairs(self) -> NDArray[Any]:
        """Of each (token, slot); those that are not sent come last."""
        fields = self.fields
        travel = self.pairs_that_travel()
        if travel is self._every_pair and not fields.shared_experts:
            lanes: NDArray[Any] = self.ids.reshape(-1).astype(self._lane_type)
            return lanes
        lane = np.empty((fields.bs, self.slots), self._lane_type)
        lane[:, : self.topk] = self.ids
        lane[:, self.topk :] = np.arange(fields.moe_experts, self.lanes)
        if travel is not self._every_pair:
            lane[~travel] = self.lanes
        return lane.reshape(-1)

    def _quantise(
        self,
        first: int,
        x: Tensor,
        token: Tensor | None = None,
        smooth: Tensor | None = None,
        factors: Tensor | None = None,
    ) -> None:
        """All tokens; with ``smooth`` the given ones, times the given rows of it."""
        views, count = self.views(), len(x) if token is None else len(token)
        step = max(_BLOCK_ELEMENTS // self.fields.hidden, 1)
        for begin in range(0, count, step):
            block = slice(begin, min(begin + step, count))
            if token is None or smooth is None or factors is None:
                rows, scales = quantise_rows(x[block])
            else:
                rows, scales = quantise_rows(x[token[block]], smooth[factors[block]])
            views.rows[first + block.start : first + block.stop].copy_(rows)
            views.scales[first + block.start : first + block.stop] = scales.numpy()

    def receive(self) -> int:
        fields, views = self.fields, self.views()
        starts = self._starts()
        counts = starts[1:] - starts[:-1]
        per_segment = counts.reshape(-1)
        prefix = per_segment.cumsum()
        received = int(prefix[-1])
        wrong = (counts < 0) | (starts[1:] > fields.max_bs * self.slots) | (starts[:-1] < 0)
        if wrong.any() or received > fields.max_rows:
            fields.detail = int(wrong.any(axis=0).argmax())
            return Code.CORRUPT
        source = np.repeat(self._sources[: len(per_segment)], per_segment)
        behind = starts[:-1].reshape(-1) - prefix
        behind += per_segment
        pair = np.arange(received)
        pair += np.repeat(behind, per_segment)
        words = views.pairs.reshape(-1).take(source * (fields.max_bs * self.slots) + pair)
        pairs = words.view(np.uint32).reshape(-1, 2)
        if received and (pairs.max(axis=0) >= self._pair_limits).any():
            bad = (pairs >= self._pair_limits).any(axis=1)
            fields.detail = int(source[bad.argmax()])
            return Code.CORRUPT
        token, slot = pairs.T.astype(np.int64)
        by_pair = views.table[:, 1] != 0
        index = np.where(by_pair[source], pair, token) if by_pair.any() else token.copy()
        index += source * self.rows_per_rank
        self._lay_out(received, index, source, token, slot)
        outputs = self.call.outputs
        outputs[4].numpy()[: prefix.size] = prefix
        ends = prefix[self.ranks - 1 :: self.ranks]
        outputs[3].numpy()[:] = counts.sum(axis=1) if fields.token_nums_type else ends
        if len(outputs[5]):
            outputs[5][0] = received
        fields.rows_received = received
        return Code.DONE

    def _starts(self) -> NDArray[np.int64]:
        """(local experts + 1, ranks): where, among each source's pairs, those for the local experts begin and end."""
        fields, begin = self.fields, self.views().table[:, 2:]
        if self.own >= fields.shared_ranks:
            low = (self.own - fields.shared_ranks) * fields.local_experts
            return np.array(begin[:, low : low + fields.local_experts + 1].T, np.int64)
        low = fields.moe_experts + self.own // fields.replicas
        starts = np.array(begin[:, low : low + 2].T, np.int64)
        others = np.arange(self.ranks) % fields.replicas != self.own % fields.replicas
        starts[1, others] = starts[0, others]
        return starts

    def _lay_out(
        self,
        received: int,
        index: NDArray[np.int64],
        source: NDArray[np.int64],
        token: NDArray[np.int64],
        slot: NDArray[np.int64],
    ) -> None:
        fields, views = self.fields, self.views()
        expand_x, dynamic_scales, assist_info, _, _, _, expand_scales = self.call.outputs
        behind = slice(received, max(fields.rows_before, received))
        """Rows that nobody sent read as zero, whatever these outputs held before."""
        torch.index_select(views.rows, 0, torch.from_numpy(index), out=expand_x[:received])
        if behind.stop > received:
            expand_x[behind] = 0
        if fields.carries_scales:
            scales = dynamic_scales.numpy()
            scales[:received] = views.scales.take(index)
            scales[behind] = 0
        if len(expand_scales):
            place = (source * fields.max_bs + token) * self.topk
            place += np.minimum(slot, self.topk - 1)
            given = (slot < self.topk) & (views.table[:, 0] != 0)[source]
            weights = expand_scales.numpy()
            weights[:received] = np.where(given, views.weights.reshape(-1)[place], np.float32(0))
            weights[behind] = 0
        if fields.handle_of_a2:
            ids = torch.from_numpy(self.ids)
            active = np.ones(ids.shape, bool) if self.active is None else self.active.copy()
            table = ordinals_at_sender(self.call.world, ids, torch.from_numpy(active))
            assist_info[: table.numel()] = table.reshape(-1)
        else:
            info = assist_info.numpy()
            triples = info[: 3 * received].reshape(-1, 3)
            triples[:, 0], triples[:, 1], triples[:, 2] = source, token, slot
            info[3 * received : 3 * behind.stop] = 0
