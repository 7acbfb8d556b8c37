"""The baseline: dispatch and combine as one writes them with torch.distributed over gloo.

Counts by one ``all_to_all_single``, rows by a second one, int8 scales by a third; ``index_select`` orders rows and
``index_add_`` sums them. No Python loop over tokens, no checks, outputs as long as what arrived. This is variant A of
the measurements that the shared-memory transport was designed by.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from scripts.benchmarks.cpu.cases import Routing


class Dispatched(NamedTuple):
    """Rows in the order (local expert, source rank, token), and the way back."""

    rows: Tensor
    scales: Tensor
    pair: Tensor
    """int64: which (token, k) of this rank each sent row was."""
    arrival: Tensor
    """int64: where each row of ``rows`` stood when it arrived, by source rank."""
    sent: list[int]
    received: list[int]


class Plain:
    """One rank's calls on one routing."""

    exact = False
    """``index_add_`` sums in the order of the experts, not of k: a last bit may differ."""

    def __init__(self, routing: Routing, rank: int, group: dist.ProcessGroup) -> None:
        self._group, self._world = group, routing.world
        self._experts, self._topk = routing.case.experts, routing.case.topk
        self._x, self._ids = routing.x[rank], routing.ids[rank]
        self._weights = routing.weights[rank].reshape(-1)
        self._held: Dispatched | None = None

    def dispatch(self, int8: bool = False) -> Dispatched:
        expert = self._ids.reshape(-1)
        pair = torch.argsort(expert, stable=True)
        send_counts = torch.bincount(expert, minlength=self._experts)
        counts = torch.empty_like(send_counts)
        dist.all_to_all_single(counts, send_counts, group=self._group)
        sent = send_counts.view(self._world, -1).sum(dim=1).tolist()
        received = counts.view(self._world, -1).sum(dim=1).tolist()

        x, token = self._x, pair // self._topk
        scales = torch.empty(0)
        if int8:
            x, token_scales = _quantised(x)
            scales = self._exchange(token_scales.index_select(0, token), received, sent)
        rows = self._exchange(x.index_select(0, token), received, sent)

        local = self._experts // self._world
        local_expert = torch.arange(local).repeat(self._world).repeat_interleave(counts)
        arrival = torch.argsort(local_expert, stable=True)
        rows = rows.index_select(0, arrival)
        if int8:
            scales = scales.index_select(0, arrival)
        return Dispatched(rows, scales, pair, arrival, sent, received)

    def dispatch_int8(self) -> Dispatched:
        return self.dispatch(int8=True)

    def combine(self) -> Tensor:
        """Of the rows that `hold` dispatched."""
        assert self._held is not None
        return self._home(self._held)

    def round_trip(self) -> Tensor:
        return self._home(self.dispatch())

    def hold(self) -> None:
        self._held = self.dispatch()

    def release(self) -> None:
        self._held = None

    def received(self, outputs: Dispatched) -> tuple[Tensor, Tensor]:
        return outputs.rows, outputs.scales

    def _home(self, dispatched: Dispatched) -> Tensor:
        place = torch.empty_like(dispatched.arrival)
        place[dispatched.arrival] = torch.arange(len(place))
        rows = dispatched.rows.index_select(0, place)
        home = self._exchange(rows, dispatched.sent, dispatched.received).float()
        home *= self._weights.index_select(0, dispatched.pair)[:, None]
        total = torch.zeros(self._x.shape)
        return total.index_add_(0, dispatched.pair // self._topk, home).to(self._x.dtype)

    def _exchange(self, rows: Tensor, received: list[int], sent: list[int]) -> Tensor:
        arrived = rows.new_empty(sum(received), *rows.shape[1:])
        dist.all_to_all_single(arrived, rows, received, sent, group=self._group)
        return arrived


def _quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    """Per token: int8 rows and fp32 scales."""
    values = x.float()
    factor = torch.full((), 127.0) / values.abs().amax(dim=1)
    rows = values.mul_(factor[:, None]).round_().to(torch.int8)
    return rows, torch.ones(()) / factor
