"""Dispatch: see ``native/dispatch.h``."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ascend_moe.cpu.windows.fields import Code
from ascend_moe.cpu.windows.portable.arrays import array, copy, whole_rows
from ascend_moe.cpu.windows.portable.choice import Handle
from ascend_moe.cpu.windows.portable.steps import Steps
from ascend_moe.reference.quant import quantise_rows
from ascend_moe.reference.routing import ordinals_at_sender

_BLOCK_ELEMENTS = 1 << 17
"""That are quantised at a time: the fp32 values between the steps stay in a core's cache."""


class _Views(NamedTuple):
    rows: Tensor
    """(all ranks' rows, H)."""
    whole_rows: NDArray[np.void]
    """The same, each one element."""
    scales: NDArray[np.float32]
    """(all ranks' rows,)."""
    weights: NDArray[np.float32]
    """(ranks, max BS, K)."""
    given: NDArray[np.int32]
    """(ranks, 2): has weights; rows by place, not by token."""
    lanes: NDArray[np.uint32]
    """(all places,)."""
    own_lanes: NDArray[np.int32]
    """(max BS, slots): of this rank."""
    own_rows_at: int
    own_lanes_at: int
    """Addresses."""

    def put(self, at: slice | NDArray[np.int64], rows: Tensor, scales: Tensor) -> None:
        """Publishes quantised rows."""
        self.rows[at if isinstance(at, slice) else torch.from_numpy(at)] = rows
        self.scales[at] = scales.numpy()


class DispatchSteps(Steps):
    """A place is (source, token, slot), a lane an expert; this rank's rows are sorted by lane, then by place."""

    def __init__(self, call: Any) -> None:
        super().__init__(call)
        fields, ranks, own = self.fields, self.ranks, self.own
        self._places_per_rank = fields.max_bs * self.slots
        places = ranks * self._places_per_rank
        shares = own < fields.shared_ranks
        self._experts = 1 if shares else fields.local_experts
        self._experts_here = np.uint32(self._experts)
        self._first_lane = np.uint32(
            fields.moe_experts + own // fields.replicas
            if shares
            else (own - fields.shared_ranks) * fields.local_experts
        )
        source = np.arange(places) // self._places_per_rank
        self._from_others = source % fields.replicas != own % fields.replicas if shares else None
        """Places of the sources whose rows go to another replica of a shared expert."""
        self._bits = max(places - 1, 1).bit_length()
        self._every_place = (1 << self._bits) - 1
        ends = np.arange(1, ranks + 1) * self._places_per_rank
        starts = np.arange(self._experts)[:, None] << self._bits
        self._segment_ends = (starts + ends).reshape(-1)
        """By local expert, then by source; a row is (local expert << bits) + place."""
        self._local = np.empty(places, np.uint32)
        self._is_here = np.empty(places, np.bool_)
        self._triples = _triples(ranks, fields.max_bs, self.slots)
        self._x_bytes = fields.bs * fields.row_bytes

    def _cut(self, half: Tensor) -> _Views:
        fields, ranks, own, places = self.fields, self.ranks, self.own, self._places_per_rank
        dtype = self.outputs[0].dtype
        shape = (ranks * self._rows_per_rank(), fields.hidden)
        weights = (ranks, fields.max_bs, self.topk)
        rows = array(half, fields.rows_at, dtype, shape)
        lanes = array(half, fields.lanes_at, torch.int32, (ranks * places,))
        own_lanes = lanes[own * places : (own + 1) * places]
        return _Views(
            rows=rows,
            whole_rows=whole_rows(rows.view(torch.int8).numpy()),
            scales=array(half, fields.scales_at, torch.float32, shape[:1]).numpy(),
            weights=array(half, fields.weights_at, torch.float32, weights).numpy(),
            given=array(half, fields.given_at, torch.int32, (ranks, 2)).numpy(),
            lanes=lanes.numpy().view(np.uint32),
            own_lanes=own_lanes.view(fields.max_bs, self.slots).numpy(),
            own_rows_at=rows.data_ptr() + own * self._rows_per_rank() * fields.row_bytes,
            own_lanes_at=own_lanes.data_ptr(),
        )

    def _rows_per_rank(self) -> int:
        return int(self.fields.max_bs * self.fields.layout_rows_per_token)

    def valid(self) -> bool:
        return self.choose()

    def publish(self, views: _Views) -> None:
        fields, own, inputs = self.fields, self.own, self.inputs
        x, expert_scales = inputs["x"], inputs.get("expert_scales")
        views.given[own] = expert_scales is not None, fields.smooth
        self._publish_lanes(views)
        first = own * self._rows_per_rank()
        if fields.smooth:
            self._quantise_places(views, first, x, inputs["scales"])
        elif fields.quantised:
            for block in _blocks(len(x), fields.hidden):
                to = slice(first + block.start, first + block.stop)
                views.put(to, *quantise_rows(x[block]))
        else:
            copy(views.own_rows_at, x.data_ptr(), self._x_bytes)
            if fields.carries_scales:
                views.scales[first : first + fields.bs] = inputs["scales"].numpy()
        if expert_scales is not None:
            views.weights[own, : fields.bs] = expert_scales.numpy()

    def _publish_lanes(self, views: _Views) -> None:
        fields, choice = self.fields, self.choice
        if fields.bs < fields.max_bs:
            views.own_lanes[fields.bs :] = -1
        if choice.travelling is None and not fields.shared_experts:
            copy(views.own_lanes_at, choice.values[0], self._ids_bytes)
            return
        lanes = views.own_lanes[: fields.bs]
        lanes[:, : self.topk] = choice.ids
        shared = fields.moe_experts + fields.shared_experts
        lanes[:, self.topk :] = np.arange(fields.moe_experts, shared)
        if choice.travelling is not None:
            lanes[~choice.travelling] = -1

    def _quantise_places(self, views: _Views, first: int, x: Tensor, smooth: Tensor) -> None:
        """A row for each place that is taken, times the factors of its expert."""
        fields = self.fields
        lanes = views.own_lanes.reshape(-1)
        place = np.flatnonzero(lanes >= 0)
        lane = lanes[place].astype(np.int64)  # shared experts come first in `scales`
        moe = lane < fields.moe_experts
        factors = torch.from_numpy(
            np.where(moe, lane + fields.shared_experts, lane - fields.moe_experts)
        )
        token = torch.from_numpy(place // self.slots)
        for block in _blocks(len(place), fields.hidden):
            rows = quantise_rows(x[token[block]], smooth[factors[block]])
            views.put(first + place[block], *rows)

    def receive(self, views: _Views) -> int:
        fields = self.fields
        _, _, _, token_nums, counts, tp_counts, _ = self.arrays
        places, prefix = self._places_of_rows(views.lanes)
        received = len(places)
        if received > fields.max_rows:
            sources = np.bincount(places // self._places_per_rank)
            fields.detail = int(sources.argmax())
            return Code.CORRUPT
        self._lay_out(views, places)
        counts[: len(prefix)] = prefix
        token_nums[:] = prefix[self.ranks - 1 :: self.ranks]
        if fields.token_nums_type and self._experts > 1:
            token_nums[1:] -= token_nums[:-1].copy()
        if len(tp_counts):
            tp_counts[0] = received
        fields.rows_received = received
        return Code.DONE

    def _places_of_rows(
        self, lanes: NDArray[np.uint32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(rows,) the place of each row; and how many rows there are up to each (local expert, source)."""
        local, is_here = self._local, self._is_here
        np.subtract(lanes, self._first_lane, out=local)
        np.less(local, self._experts_here, out=is_here)
        if self._from_others is not None:
            is_here[self._from_others] = False
        rows: NDArray[np.int64] = is_here.nonzero()[0]
        if self._experts > 1:
            rows += local.take(rows).astype(np.int64) << self._bits
            rows.sort()
        prefix = rows.searchsorted(self._segment_ends)
        rows &= self._every_place
        return rows, prefix

    def _lay_out(self, views: _Views, places: NDArray[np.int64]) -> None:
        fields, arrays = self.fields, self.arrays
        received = len(places)
        index = self._rows_at(views, places)
        behind = slice(received, max(fields.rows_before, received))
        """Rows that nobody sent read as zero, whatever these outputs held before."""
        rows = whole_rows(arrays[0])
        views.whole_rows.take(index, out=rows[:received], mode="clip")
        if behind.stop > received:
            arrays[0][behind] = 0
        if fields.carries_scales:
            scales = arrays[1]
            scales[:received] = views.scales.take(index)
            scales[behind] = 0
        if arrays[6].size:
            self._lay_out_weights(views, places, behind)
        if fields.handle_of_a2:
            self._write_ordinals()
            return
        triples = self._triples.take(places).tobytes()
        copy(self.outputs[2].data_ptr(), triples, len(triples))
        if behind.stop > received:
            arrays[2][3 * received : 3 * behind.stop] = 0
        handle = Handle(fields.barrier, self.choice, triples, places)
        self.call.windows.handles.append(handle)

    def _rows_at(self, views: _Views, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of all ranks' rows goes to each place."""
        fields = self.fields
        if fields.layout_rows_per_token == 1:
            tokens: NDArray[np.int64] = places // self.slots
            return tokens
        by_place = views.given[:, 1] != 0
        source = places // self._places_per_rank
        token = places // self.slots - source * fields.max_bs
        by_token = source * self._rows_per_rank() + token
        index: NDArray[np.int64] = np.where(by_place[source], places, by_token)
        return index

    def _lay_out_weights(self, views: _Views, places: NDArray[np.int64], behind: slice) -> None:
        weights, topk = self.arrays[6], self.topk
        token, slot = np.divmod(places, self.slots)
        source = places // self._places_per_rank
        given = (slot < topk) & (views.given[:, 0] != 0)[source]
        found = views.weights.reshape(-1)[token * topk + np.minimum(slot, topk - 1)]
        weights[: behind.start] = np.where(given, found, np.float32(0))
        weights[behind] = 0

    def _write_ordinals(self) -> None:
        choice = self.choice
        ids = torch.from_numpy(choice.ids.copy())
        active = np.ones(ids.shape, bool) if choice.active is None else choice.active.copy()
        table = ordinals_at_sender(self.call.world, ids, torch.from_numpy(active))
        self.outputs[2][: table.numel()] = table.reshape(-1)


def _blocks(count: int, hidden: int) -> list[slice]:
    step = max(_BLOCK_ELEMENTS // hidden, 1)
    return [slice(begin, min(begin + step, count)) for begin in range(0, count, step)]


@lru_cache(maxsize=16)
def _triples(ranks: int, max_bs: int, slots: int) -> NDArray[np.void]:
    """(places,): the int32 (source, token, slot) of each, as one element."""
    shape = (ranks, max_bs, slots)
    return whole_rows(np.ascontiguousarray(np.indices(shape, np.int32).reshape(3, -1).T))
