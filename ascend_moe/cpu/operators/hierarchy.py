"""Hierarchy on one rank: the traffic of full mesh, the arithmetic of servers.

`reference.hierarchy` explains the path. What it saves on hardware, traffic between servers, does not exist here, so
rows travel once, straight to the owner of their token, and the owner adds what its relays would have added: the same
numbers, in the same order, with the same roundings. Each row carries its ``expand_scales`` as its weight and its
place in the order of the sum where full mesh has k.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ascend_moe.contract.handle import row_places, slots_of
from ascend_moe.contract.servers import Servers
from ascend_moe.contract.shapes import World
from ascend_moe.cpu.operators.combine import Home, Homeward
from ascend_moe.cpu.operators.dispatch import Arrived
from ascend_moe.cpu.operators.wire import Rows, pack
from ascend_moe.reference.quant import add_server_sum, empty_server_total, fused_multiply_add


def write_handle(own: Arrived, outputs: tuple[Tensor, ...]) -> None:
    """Dispatch: token and place of each row, behind the prefix sums; ``assist_info_for_combine`` stays untouched."""
    row_places(outputs[4], own.counts.numel(), len(own.source))[:] = own.rows.place[:, :2]


def homeward(world: World, call: Mapping[str, Any], rows: Tensor) -> Homeward:
    """Groups this rank's rows by the rank they came from."""
    slots = slots_of(world, call["ep_rank_id"])
    ends = call["ep_send_counts"][:slots].long()
    per_slot = torch.diff(ends, prepend=ends.new_zeros(1))
    source = torch.repeat_interleave(torch.arange(slots) % world.ep_world_size, per_slot)
    place = torch.zeros(len(rows), 3, dtype=torch.int64)
    place[:, :2] = row_places(call["ep_send_counts"], slots, len(rows))
    weights = call["expand_scales"][: len(rows)]
    order = torch.argsort(source, stable=True)
    counts = torch.bincount(source, minlength=world.ep_world_size)
    return Homeward(pack(rows[order], place[order], weights=weights[order]), counts.tolist())


def weighted_sum(
    world: World,
    servers: Servers,
    call: Mapping[str, Any],
    rows: Rows,
    receive_counts: list[int],
    home: Home,
) -> Tensor:
    """One output row per token, server by server; inactive tokens give zeros."""
    sender = torch.repeat_interleave(
        torch.arange(world.ep_world_size), torch.tensor(receive_counts)
    )
    server_of_row = sender // servers.ranks_per_server
    tokens, places = home.row_of.shape
    hidden, dtype = rows.elements.shape[1], rows.elements.dtype
    quantised = call["comm_quant_mode"]
    total = empty_server_total(tokens, hidden, dtype, quantised)
    for server in range(world.ep_world_size // servers.ranks_per_server):
        here = home.travelled.clone()
        here[home.travelled] = server_of_row[home.row_of[home.travelled]] == server
        partial = torch.zeros(tokens, hidden)
        for place in range(places):
            token = here[:, place].nonzero().squeeze(1)
            row = home.row_of[token, place]
            # Added to zero, the first product is rounded as a multiplication would; a lost minus sign of a zero does
            # not reach the result, because the total begins at plus zero too.
            partial[token] = fused_multiply_add(
                rows.elements[row].float(), rows.weights[row, None], partial[token]
            )
        token = here.any(dim=1).nonzero().squeeze(1)
        total[token] = add_server_sum(total[token], partial[token], dtype, quantised)
    return total.to(dtype)
