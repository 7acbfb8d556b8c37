"""Dispatch on one rank: what leaves, and how what arrives is laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ascend_moe.contract.shapes import TensorSpec, World
from ascend_moe.cpu.operators.wire import Rows, pack, unpack
from ascend_moe.outputs import zero_output
from ascend_moe.reference.quant import quantise_rows, rows_carry_scales
from ascend_moe.reference.routing import Routes, active_pairs, ordinals_at_sender, routes


class Arrived(NamedTuple):
    """This rank's rows in final order: by local expert, source rank, token, slot."""

    rows: Rows
    source: Tensor
    """int64 (n,) EP rank of each row."""
    counts: Tensor
    """int64 (experts, ep) rows per local expert and source."""


def leaving(world: World, call: Mapping[str, Any]) -> Routes:
    """The pairs that this rank sends, grouped by destination and there by local expert."""
    bs = call["x"].shape[0]
    source = torch.full((bs,), call["ep_rank_id"])
    active = active_pairs(call["expert_ids"], call["x_active_mask"])
    return routes(world, source, torch.arange(bs), call["expert_ids"], active)


def outgoing(call: Mapping[str, Any], pairs: Routes) -> Tensor:
    """The wire buffer of ``pairs``; with quantisation the rows are int8 and carry their scale."""
    x, scales = call["x"], None
    if not call["quant_mode"]:
        rows = x.index_select(0, pairs.token)
        if rows_carry_scales(x, quant_mode=0):
            scales = call["scales"][pairs.token]
    elif call["scales"] is None:
        quantised, token_scales = quantise_rows(x)
        rows, scales = quantised.index_select(0, pairs.token), token_scales[pairs.token]
    else:
        rows, scales = quantise_rows(
            x.index_select(0, pairs.token), call["scales"][pairs.scale_row]
        )
    weights = None
    if call["expert_scales"] is not None and call["expert_scales"].numel():
        topk = call["expert_ids"].shape[1]
        weights = call["expert_scales"][pairs.token, pairs.slot.clamp(max=topk - 1)]
        weights = weights.where(pairs.slot < topk, 0.0)
    return pack(
        rows,
        torch.stack([pairs.token, pairs.slot, pairs.local_expert], dim=1),
        scales=scales,
        weights=weights,
    )


def arrange(
    world: World, call: Mapping[str, Any], incoming: Tensor, receive_counts: list[int]
) -> Arrived:
    """Brings rows that arrived grouped by source into final order: a stable sort by local expert is all it takes."""
    hidden = call["x"].shape[1]
    dtype = torch.int8 if call["quant_mode"] else call["x"].dtype
    source = torch.repeat_interleave(
        torch.arange(world.ep_world_size), torch.tensor(receive_counts)
    )
    local_expert = unpack(incoming, hidden, dtype).place[:, 2].long()
    order = torch.argsort(local_expert, stable=True)
    experts = world.experts_on(call["ep_rank_id"])
    counts = torch.bincount(
        local_expert * world.ep_world_size + source, minlength=experts * world.ep_world_size
    )
    rows = unpack(incoming.index_select(0, order), hidden, dtype)
    return Arrived(rows, source[order], counts.view(experts, world.ep_world_size))


def lay_out(
    call: Mapping[str, Any], own: Arrived, peer: Arrived | None, specs: Sequence[TensorSpec]
) -> tuple[Tensor, ...]:
    """The seven outputs without combine's handle; rows that nobody sent, and what a mode does not define, are zero."""
    outputs = tuple(map(zero_output, specs))
    expand_x, dynamic_scales, _, token_nums, ep_counts, tp_counts, expand_scales = outputs

    n_own = len(own.source)
    expand_x[:n_own] = own.rows.elements
    carry_scales = rows_carry_scales(call["x"], call["quant_mode"])
    if carry_scales:
        dynamic_scales[:n_own] = own.rows.scales
    if len(expand_scales):
        expand_scales[:n_own] = own.rows.weights
    slots = own.counts.numel()
    ep_counts[:slots] = own.counts.reshape(-1).cumsum(0)
    received = own.counts.sum(dim=1)
    if len(tp_counts):
        tp_counts[call["tp_rank_id"]] = n_own
    if peer is not None:
        n_peer = len(peer.source)
        expand_x[n_own : n_own + n_peer] = peer.rows.elements
        if carry_scales:
            dynamic_scales[n_own : n_own + n_peer] = peer.rows.scales
        ep_counts[slots : 2 * slots] = peer.counts.reshape(-1).cumsum(0)
        received = received + n_peer
        tp_counts[1 - call["tp_rank_id"]] = n_peer
    token_nums[: len(received)] = received if call["expert_token_nums_type"] else received.cumsum(0)
    return outputs


def write_handle(
    world: World, call: Mapping[str, Any], product: str, own: Arrived, outputs: tuple[Tensor, ...]
) -> None:
    """What combine finds its rows by on full mesh: ``assist_info_for_combine``."""
    assist_info, n_own = outputs[2], len(own.source)
    if product == "A2":
        active = active_pairs(call["expert_ids"], call["x_active_mask"])
        table = ordinals_at_sender(world, call["expert_ids"], active)
        assist_info[: table.numel()] = table.reshape(-1)
    else:
        triples = assist_info[: 3 * n_own].view(n_own, 3)
        triples[:, 0] = own.source
        triples[:, 1:] = own.rows.place[:, :2]
