"""Dispatch of a whole EP world in one process: what every rank receives, planned once for all ranks.

The calls of all ranks become one `Batch`. ``routing.routes`` lists the pairs that travel, already in the order of the
receivers, so one list of rows (`Received`) says what everybody gets. The padded outputs of all ranks are rows of a
table each (`outputs.zero_table`): counts, scales and handles are written for the whole world at once, and 768 ranks
are as easy to simulate as two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ascend_moe.contract.shapes import DispatchSpecs, World, dispatch_specs_of_call
from ascend_moe.outputs import ZeroTable, joined, zero_table
from ascend_moe.reference import hierarchy
from ascend_moe.reference.batch import Batch
from ascend_moe.reference.calls import WorldCalls, normalise
from ascend_moe.reference.quant import quantise_rows
from ascend_moe.reference.routing import Routes, routes


class DispatchOutput(NamedTuple):
    """The seven results of dispatch on one rank, in the operator's order.

    Rows at and beyond the received count (the last entry of the first ``ep * experts`` of ``ep_recv_counts``, plus
    the TP peer's) are unspecified on hardware; here they are zero.
    """

    expand_x: Tensor
    dynamic_scales: Tensor
    assist_info_for_combine: Tensor
    expert_token_nums: Tensor
    ep_recv_counts: Tensor
    tp_recv_counts: Tensor
    expand_scales: Tensor


class Received(NamedTuple):
    """What the n rows of one EP group are: receiver after receiver, and for each in its own order."""

    pairs: Routes
    """Where each row comes from and goes to."""
    at: Tensor
    """int64 (n,) position among the rows of its receiver."""
    cell: Tensor
    """int64 (n,) receiver, local expert and source in one number; ascending."""
    row: Tensor
    """int64 (n,) which of the ``rows`` it is."""
    rows: Tensor
    """(m, H) what travels."""
    scales: Tensor
    """fp32 (n,) dynamic scales; empty when rows carry none."""
    weights: Tensor
    """fp32 (n,) its ``expert_scales``, 0 where its source gave none; empty when no rank gave any."""
    ends: Tensor
    """int64 (ranks, experts, ranks) prefix sums of each receiver's rows by (local expert, source)."""

    @property
    def per_rank(self) -> Tensor:
        """int64 (ranks,) number of rows by receiver."""
        return self.ends[:, -1, -1]


def dispatch_world(
    calls: Sequence[Mapping[str, Any]],
    *,
    product: str | None = None,
    contract: str | None = None,
    check: bool = True,
) -> list[DispatchOutput]:
    """What ``npu_moe_distribute_dispatch_v2`` returns on every rank of an EP world.

    calls: one dict of the operator's own keywords per rank, ordered by EP rank; with ``tp_world_size`` 2 ordered
        ``ep_rank * 2 + tp_rank``; with ``elastic_info`` those of the ranks that are left. ``group_ep`` and
        ``group_tp`` are not used and may be absent.
    product, contract: as in the ``ASCEND_MOE_PRODUCT`` and ``ASCEND_MOE_CONTRACT`` variables, which are the defaults.
    check: False leaves out all checks, for speed.

    Returns one `DispatchOutput` per call, in the same order. Each tensor has a storage of its own, of its own size.
    Raises ConstraintError for a call that the executor could not run (wrong shapes, ids out of range, ranks that
    disagree, a mode the contract does not know).
    """
    world_calls = normalise("dispatch", calls, product=product, contract=contract, check=check)
    world, tp, arguments = world_calls.world, world_calls.tp_world_size, world_calls.arguments
    if world_calls.servers is not None:
        arguments = [world_calls.servers.in_order_of_sum(call) for call in arguments]
    received = [_receive(world, arguments[plane::tp]) for plane in range(tp)]

    columns = _zero_outputs(world_calls, received)
    tables = DispatchOutput(*(column.table for column in columns))
    outputs = [
        DispatchOutput(*tensors)
        for tensors in zip(*(column.outputs for column in columns), strict=True)
    ]
    for plane, own in enumerate(received):
        group = outputs[plane::tp]
        group_tables = DispatchOutput(*(table[plane::tp] for table in tables))
        _write_rows(world, group, group_tables, own)
        if tp == 2:
            _write_rows(world, group, group_tables, received[1 - plane], behind=own)
        if group_tables.tp_recv_counts.numel():
            for sender, rows in enumerate(received):
                group_tables.tp_recv_counts[:, sender] = rows.per_rank.int()
        if world_calls.servers is not None:
            counts = [output.ep_recv_counts for output in group]
            hierarchy.write_handles(world, counts, own.pairs, own.per_rank)
        else:
            _write_handles(world_calls, arguments[plane::tp], group_tables, own)
    for call, output in zip(arguments, outputs, strict=True):
        if not call["expert_token_nums_type"]:
            token_nums = output.expert_token_nums[: world.experts_on(call["ep_rank_id"])]
            token_nums.copy_(token_nums.cumsum(0))
    return [outputs[position] for position in world_calls.positions]


def _zero_outputs(world_calls: WorldCalls, received: Sequence[Received]) -> list[ZeroTable]:
    """The seven outputs of all ranks; what will be written without gaps may hold anything."""
    known: dict[object, DispatchSpecs] = {}
    specs = []
    for call in world_calls.given:
        kind = (
            call["x"].size(0),
            call["ep_rank_id"] < call["shared_expert_rank_num"],
            call["expert_scales"] is None,
        )
        if kind not in known:
            known[kind] = dispatch_specs_of_call(call)
        specs.append(known[kind])
    columns = dict(zip(DispatchSpecs._fields, zip(*specs, strict=True), strict=True))
    own = torch.stack([plane.per_rank for plane in received], dim=1)
    with_peer = own.sum(dim=1, keepdim=True).expand_as(own)
    written = {"expand_x": with_peer * columns["expand_x"][0].shape[1]}
    if world_calls.handle_is_triples:
        written["assist_info_for_combine"] = 3 * own
    return [
        zero_table(column, written=written[name].flatten().tolist() if name in written else None)
        for name, column in columns.items()
    ]


def _receive(world: World, calls: Sequence[Mapping[str, Any]]) -> Received:
    """The rows that travel in one EP group, and who receives them."""
    batch = Batch.of(calls)
    pairs = routes(world, batch.source, batch.token, batch.ids, batch.active)
    in_world = batch.first[pairs.source] + pairs.token
    rows, scales, row = _travelling_rows(calls, pairs, in_world)

    ep, experts = world.ep_world_size, max(world.local_expert_num, 1)
    cell = (pairs.destination * experts + pairs.local_expert) * ep + pairs.source
    ends = torch.bincount(cell, minlength=ep * experts * ep).view(ep, -1).cumsum_(1)
    return Received(
        pairs=pairs,
        at=_position_in_group(pairs.destination, ends[:, -1]),
        cell=cell,
        row=row,
        rows=rows,
        scales=scales[row] if len(scales) else scales,
        weights=_weights(calls, pairs, in_world),
        ends=ends.view(ep, experts, ep),
    )


def _position_in_group(group: Tensor, sizes: Tensor) -> Tensor:
    """How many earlier entries of the ascending ``group`` are the same, given how often each number is in it."""
    first = sizes.cumsum(0) - sizes
    return torch.arange(len(group)) - first[group]


def _travelling_rows(
    calls: Sequence[Mapping[str, Any]], pairs: Routes, in_world: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What the senders put on the link: rows, their fp32 scales, and which row each pair takes.

    Without smooth scales a token is quantised once, whatever its experts; with them once per pair, because the
    factors belong to the expert. Packed int4 comes with a scale per token.
    """
    x = joined([call["x"] for call in calls])
    if not calls[0]["quant_mode"]:
        given = [call["scales"] for call in calls] if x.dtype == torch.int32 else [torch.empty(0)]
        return x, torch.cat(given), in_world
    if all(call["scales"] is None for call in calls):
        return *quantise_rows(x), in_world
    rows = torch.empty(len(in_world), x.shape[1], dtype=torch.int8)
    scales = torch.empty(len(in_world))
    by_source = torch.argsort(pairs.source, stable=True)
    per_source = torch.bincount(pairs.source, minlength=len(calls)).tolist()
    for call, mine in zip(calls, torch.split(by_source, per_source), strict=True):
        smooth = None if call["scales"] is None else call["scales"][pairs.scale_row[mine]]
        rows[mine], scales[mine] = quantise_rows(x[in_world[mine]], smooth)
    return rows, scales, torch.arange(len(in_world))


def _weights(calls: Sequence[Mapping[str, Any]], pairs: Routes, in_world: Tensor) -> Tensor:
    """The expert_scales of every pair; 0 for a shared expert, whose rows carry no weight."""
    if all(call["expert_scales"] is None for call in calls):
        return torch.empty(0)
    expert_scales = torch.cat(
        [
            torch.zeros(call["expert_ids"].shape)
            if call["expert_scales"] is None
            else call["expert_scales"]
            for call in calls
        ]
    )
    topk = expert_scales.shape[1]
    weights = expert_scales[in_world, pairs.slot.clamp(max=topk - 1)]
    return torch.where(pairs.slot < topk, weights, 0.0)


def _write_rows(
    world: World,
    outputs: Sequence[DispatchOutput],
    tables: DispatchOutput,
    received: Received,
    behind: Received | None = None,
) -> None:
    """Rows with their scales and counts into the outputs of one EP group.

    behind: the group's own rows, when ``received`` are those of its TP peers, which follow them
    """
    per_rank = received.per_rank.tolist()
    begin = torch.zeros_like(received.per_rank) if behind is None else behind.per_rank
    for output, first, count, row in zip(
        outputs, begin.tolist(), per_rank, torch.split(received.row, per_rank), strict=True
    ):
        torch.index_select(received.rows, 0, row, out=output.expand_x[first : first + count])
    receiver = received.pairs.destination
    at = begin[receiver] + received.at
    if len(received.scales):
        tables.dynamic_scales[receiver, at] = received.scales
    if len(received.weights) and behind is None:
        tables.expand_scales[receiver, at] = received.weights

    ep, experts = world.ep_world_size, received.ends.shape[1]
    shared_ranks, moe_ranks = (
        slice(world.shared_expert_rank_num),
        slice(world.shared_expert_rank_num, ep),
    )
    prefix = received.ends.flatten(1)
    for ranks, slots in ((shared_ranks, ep), (moe_ranks, experts * ep)):
        half = slice(slots) if behind is None else slice(slots, 2 * slots)
        tables.ep_recv_counts[ranks, half] = prefix[ranks, :slots]
    of_expert = received.ends[:, :, -1].diff(dim=1, prepend=torch.zeros(ep, 1, dtype=torch.int64))
    tables.expert_token_nums[:, :experts] += of_expert


def _write_handles(
    world_calls: WorldCalls,
    calls: Sequence[Mapping[str, Any]],
    tables: DispatchOutput,
    own: Received,
) -> None:
    """What combine finds its rows by on full mesh."""
    pairs, table = own.pairs, tables.assist_info_for_combine
    if world_calls.handle_is_triples:
        triples = torch.stack([pairs.source, pairs.token, pairs.slot], dim=1).int()
        words = 3 * own.at[:, None] + torch.arange(3)
        table[pairs.destination[:, None], words] = triples
    else:  # at the sender: how many of its pairs to the same expert come before
        topk = calls[0]["expert_ids"].shape[1]
        ordinal = _position_in_group(own.cell, torch.bincount(own.cell))
        table[pairs.source, pairs.token * topk + pairs.slot] = ordinal.int()
