"""Dispatch of a whole EP world in one process: what every rank receives, planned once for all ranks.

The calls of all ranks become one list of tokens. ``routing.routes`` lists the pairs that travel, already in the order
of the receivers; rows, scales, triples and counts of a rank are then slices of world-wide tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ascend_moe.contract.shapes import World, dispatch_specs_of_call
from ascend_moe.outputs import zero_output
from ascend_moe.reference import hierarchy
from ascend_moe.reference.calls import normalise
from ascend_moe.reference.quant import quantise_rows, rows_carry_scales
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


@dataclass(frozen=True)
class Received:
    """The rows of one rank before they are laid out in padded outputs."""

    rows: Tensor
    """(n, H) in the dtype of ``expand_x``."""
    scales: Tensor
    """fp32 (n,) dynamic scales; empty without quantisation."""
    weights: Tensor
    """fp32 (n,) the ``expert_scales`` of each row; 0 where its source gave none."""
    pairs: Routes
    """Where each row comes from."""
    counts: Tensor
    """int64 (experts, ep): rows of each local expert from each source rank."""

    def __len__(self) -> int:
        return len(self.rows)


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
    outputs = []
    for index, call in enumerate(arguments):
        ep_rank, tp_rank = divmod(index, tp)
        own = planes[tp_rank][ep_rank]
        peer = planes[1 - tp_rank][ep_rank] if tp == 2 else None
        output = _lay_out(world, call, own, peer)
        if world_calls.servers is not None:
            hierarchy.write_handle(output.ep_recv_counts, own.counts.numel(), own.pairs)
        else:
            _write_handle(world, call, world_calls.product, own, output)
        outputs.append(output)
    return outputs


def _receive_all(world: World, calls: Sequence[Mapping[str, Any]]) -> list[Received]:
    """One EP group: the rows of every rank, in its own order."""
    first = calls[0]
    batch_sizes = torch.tensor([len(call["x"]) for call in calls])
    first_token = batch_sizes.cumsum(0) - batch_sizes
    source = torch.repeat_interleave(torch.arange(len(calls)), batch_sizes)
    token = torch.arange(int(batch_sizes.sum())) - first_token[source]
    active = torch.cat([active_pairs(call["expert_ids"], call["x_active_mask"]) for call in calls])
    pairs = routes(world, source, token, torch.cat([call["expert_ids"] for call in calls]), active)

    in_world = first_token[pairs.source] + pairs.token
    rows, scales, row_of_pair = _travelling_rows(calls, pairs, in_world)
    carry_scales = rows_carry_scales(first["x"], first["quant_mode"])
    weights = _weights(calls, pairs, in_world)

    experts = max(world.local_expert_num, 1)
    slot = (pairs.destination * experts + pairs.local_expert) * world.ep_world_size + pairs.source
    counts = torch.bincount(slot, minlength=world.ep_world_size**2 * experts)
    counts = counts.view(world.ep_world_size, experts, world.ep_world_size)
    ends = counts.sum(dim=(1, 2)).cumsum(0).tolist()

    received = []
    for rank in range(world.ep_world_size):
        span = slice(ends[rank - 1] if rank else 0, ends[rank])
        index = row_of_pair[span]
        received.append(
            Received(
                rows=rows[index],
                scales=scales[index] if carry_scales else scales,
                weights=weights[span],
                pairs=Routes(*(column[span] for column in pairs)),
                counts=counts[rank, : world.experts_on(rank)],
            )
        )
    return received


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


def _weights(calls: Sequence[Mapping[str, Any]], pairs: Routes, in_world: Tensor) -> Tensor:
    """The expert_scales of every pair; 0 for a shared expert, whose rows carry no weight."""
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


def _write_handle(
    world: World, call: Mapping[str, Any], product: str, own: Received, output: DispatchOutput
) -> None:
    """What combine finds its rows by on full mesh."""
    if product == "A2":
        active = active_pairs(call["expert_ids"], call["x_active_mask"])
        table = ordinals_at_sender(world, call["expert_ids"], active)
        output.assist_info_for_combine[: table.numel()] = table.reshape(-1)
    else:
        triples = torch.stack([own.pairs.source, own.pairs.token, own.pairs.slot], dim=1)
        output.assist_info_for_combine[: triples.numel()] = triples.reshape(-1)


def _lay_out(
    world: World, call: Mapping[str, Any], own: Received, peer: Received | None
) -> DispatchOutput:
    """The padded outputs of one rank: own rows first, the TP peer's rows directly behind."""
    output = DispatchOutput(*(zero_output(spec) for spec in dispatch_specs_of_call(call)))
    n_own, n_all = len(own), len(own) + (len(peer) if peer else 0)

    output.expand_x[:n_own] = own.rows
    output.dynamic_scales[: len(own.scales)] = own.scales
    if call["expert_scales"] is not None:
        output.expand_scales[:n_own] = own.weights
    prefix = own.counts.reshape(-1).cumsum(0)
    output.ep_recv_counts[: len(prefix)] = prefix
    token_nums = own.counts.sum(dim=1)
    if peer is not None:
        output.expand_x[n_own:n_all] = peer.rows
        output.dynamic_scales[n_own : n_own + len(peer.scales)] = peer.scales
        output.ep_recv_counts[len(prefix) :] = peer.counts.reshape(-1).cumsum(0)
        token_nums = token_nums + peer.counts.sum(dim=1)
        output.tp_recv_counts[call["tp_rank_id"]] = n_own
        output.tp_recv_counts[1 - call["tp_rank_id"]] = len(peer)
    elif len(output.tp_recv_counts):
        output.tp_recv_counts[0] = n_own
    output.expert_token_nums[:] = (
        token_nums if call["expert_token_nums_type"] else token_nums.cumsum(0)
    )
    return output
