"""Dispatch of a whole EP world in one process: what every rank receives, planned once for all ranks.

The calls of all ranks become one `Batch`. ``routing.routes`` lists the pairs that travel, already in the order of the
receivers; what a rank receives is then a slice of world-wide tensors. Only the padded outputs are laid out rank by
rank, so 768 ranks are as easy to simulate as two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ascend_moe.contract.shapes import DispatchSpecs, World, dispatch_specs_of_call
from ascend_moe.outputs import zero_outputs
from ascend_moe.reference import hierarchy
from ascend_moe.reference.batch import Batch
from ascend_moe.reference.calls import normalise
from ascend_moe.reference.quant import quantise_rows
from ascend_moe.reference.routing import Routes, active_pairs, ordinals_at_sender, routes


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
    """The rows of one rank before they are laid out in padded outputs."""

    n: int
    row: Tensor
    """int64 (n,) which of the rows that travel."""
    scales: Tensor
    """fp32 (n,) dynamic scales; empty when rows carry none."""
    weights: Tensor
    """fp32 (n,) the ``expert_scales`` of each row, 0 where its source gave none; empty when no rank gave any."""
    triples: Tensor
    """int32 (n, 3): source rank, token, slot."""
    prefix: Tensor
    """int32 (experts * ep,) prefix sums of the rows per (local expert, source rank)."""
    token_nums: Tensor
    """int64 (experts,) rows of each local expert."""


def dispatch_world(
    calls: Sequence[Mapping[str, Any]],
    *,
    product: str | None = None,
    contract: str | None = None,
    check: bool = True,
) -> list[DispatchOutput]:
    """What ``npu_moe_distribute_dispatch_v2`` returns on every rank of an EP world.

    calls: one dict of the operator's own keywords per rank, ordered by EP rank; with ``tp_world_size`` 2 ordered
        ``ep_rank * 2 + tp_rank``. ``group_ep`` and ``group_tp`` are not used and may be absent.
    product, contract: as in the ``ASCEND_MOE_PRODUCT`` and ``ASCEND_MOE_CONTRACT`` variables, which are the defaults.
    check: False leaves out all checks, for speed.

    Returns one `DispatchOutput` per call, in the same order. Raises ConstraintError for a call that the executor
    could not run (wrong shapes, ids out of range, ranks that disagree, a mode the contract does not know).
    """
    world_calls = normalise("dispatch", calls, product=product, contract=contract, check=check)
    world, tp, arguments = world_calls.world, world_calls.tp_world_size, world_calls.arguments
    if world_calls.servers is not None:
        arguments = [world_calls.servers.in_order_of_sum(call) for call in arguments]
    planes = [_receive_all(world, arguments[plane::tp]) for plane in range(tp)]
    row_bytes = planes[0][0].shape[1] * planes[0][0].element_size()
    written = [
        planes[plane][1][rank].n * row_bytes
        for rank in range(world.ep_world_size)
        for plane in range(tp)
    ]
    outputs = [
        DispatchOutput(*tensors)
        for tensors in zero_outputs(_specs(world, arguments), written=written)
    ]
    for index, (call, output) in enumerate(zip(arguments, outputs, strict=True)):
        ep_rank, tp_rank = divmod(index, tp)
        rows, received = planes[tp_rank]
        own = received[ep_rank]
        _lay_out(call, output, rows, own)
        if tp == 2:
            peer_rows, peer_received = planes[1 - tp_rank]
            _lay_out_peer(call, output, peer_rows, peer_received[ep_rank])
        if not call["expert_token_nums_type"]:
            output.expert_token_nums.copy_(output.expert_token_nums.cumsum(0))
        if world_calls.servers is not None:
            hierarchy.write_handle(output.ep_recv_counts, own.prefix.numel(), own.triples)
        else:
            _write_handle(world, call, world_calls.product, own, output)
    return outputs


def _specs(world: World, calls: Sequence[Mapping[str, Any]]) -> list[DispatchSpecs]:
    """The shapes of every rank's outputs, worked out once per kind of rank."""
    known: dict[object, DispatchSpecs] = {}
    specs = []
    for call in calls:
        kind = (
            call["x"].size(0),
            world.is_shared_rank(call["ep_rank_id"]),
            call["expert_scales"] is None,
        )
        if kind not in known:
            known[kind] = dispatch_specs_of_call(call)
        specs.append(known[kind])
    return specs


def _receive_all(world: World, calls: Sequence[Mapping[str, Any]]) -> tuple[Tensor, list[Received]]:
    """One EP group: the rows that travel, and what every rank receives of them, in its own order."""
    batch = Batch.of(calls)
    pairs = routes(world, batch.source, batch.token, batch.ids, batch.active)
    in_world = batch.first[pairs.source] + pairs.token
    rows, scales, row_of_pair = _travelling_rows(calls, pairs, in_world)

    ep, experts = world.ep_world_size, max(world.local_expert_num, 1)
    slot = (pairs.destination * experts + pairs.local_expert) * ep + pairs.source
    counts = torch.bincount(slot, minlength=ep * experts * ep).view(ep, experts, ep)
    triples = torch.stack([pairs.source, pairs.token, pairs.slot], dim=1).int()

    received = counts.sum(dim=(1, 2)).tolist()
    by_rank = zip(
        received,
        torch.split(row_of_pair, received),
        torch.split(scales[row_of_pair], received) if len(scales) else [scales] * ep,
        _weights(calls, pairs, in_world, received),
        torch.split(triples, received),
        counts.flatten(1).cumsum(1).int(),
        counts.sum(dim=2),
        strict=True,
    )
    ranks = [Received(*columns) for columns in by_rank]
    for rank in range(world.shared_expert_rank_num):
        shared = ranks[rank]  # it has one expert, the others are empty
        ranks[rank] = shared._replace(prefix=shared.prefix[:ep], token_nums=shared.token_nums[:1])
    return rows, ranks


def _travelling_rows(
    calls: Sequence[Mapping[str, Any]], pairs: Routes, in_world: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What the senders put on the link: rows, their fp32 scales, and which row each pair takes.

    Without smooth scales a token is quantised once, whatever its experts; with them once per pair, because the
    factors belong to the expert. Packed int4 comes with a scale per token.
    """
    x = torch.cat([call["x"] for call in calls])
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


def _weights(
    calls: Sequence[Mapping[str, Any]], pairs: Routes, in_world: Tensor, received: list[int]
) -> Sequence[Tensor]:
    """By receiver: the expert_scales of every pair; 0 for a shared expert, whose rows carry no weight."""
    if all(call["expert_scales"] is None for call in calls):
        return [torch.empty(0)] * len(calls)
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
    return torch.split(torch.where(pairs.slot < topk, weights, 0.0), received)


def _write_handle(
    world: World, call: Mapping[str, Any], product: str, own: Received, output: DispatchOutput
) -> None:
    """What combine finds its rows by on full mesh."""
    if product == "A2":
        active = active_pairs(call["expert_ids"], call["x_active_mask"])
        table = ordinals_at_sender(world, call["expert_ids"], active)
    else:
        table = own.triples
    output.assist_info_for_combine[: table.numel()] = table.view(-1)


def _lay_out(call: Mapping[str, Any], output: DispatchOutput, rows: Tensor, own: Received) -> None:
    """A rank's own rows and their counts, at the front of its padded outputs."""
    torch.index_select(rows, 0, own.row, out=output.expand_x[: own.n])
    if own.scales.numel():
        output.dynamic_scales[: own.n] = own.scales
    if call["expert_scales"] is not None:
        output.expand_scales[: own.n] = own.weights
    output.ep_recv_counts[: own.prefix.numel()] = own.prefix
    output.expert_token_nums.copy_(own.token_nums)
    if output.tp_recv_counts.numel():
        output.tp_recv_counts[0] = own.n


def _lay_out_peer(
    call: Mapping[str, Any], output: DispatchOutput, rows: Tensor, peer: Received
) -> None:
    """The rows of the TP peer and their counts, directly behind the rank's own."""
    own, slots = int(output.tp_recv_counts[0]), peer.prefix.numel()
    behind = slice(own, own + peer.n)
    torch.index_select(rows, 0, peer.row, out=output.expand_x[behind])
    if peer.scales.numel():
        output.dynamic_scales[behind] = peer.scales
    output.ep_recv_counts[slots : 2 * slots] = peer.prefix
    output.expert_token_nums.add_(peer.token_nums)
    output.tp_recv_counts[call["tp_rank_id"]] = own
    output.tp_recv_counts[1 - call["tp_rank_id"]] = peer.n
