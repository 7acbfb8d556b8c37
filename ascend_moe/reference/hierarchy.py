"""The hierarchy path: rows of a server are added before they leave it (A2: 8 ranks per server, A3: 16).

Between servers the link is slow, so a token crosses it once per *server*, not once per expert. The ranks with the same
index in their servers are each other's *relays*:

dispatch   1. A token goes to its owner's relay in every server that holds one of its experts, together with its
              expert ids and weights, quantised at most once (hence no smooth factors).
           2. The relay hands copies to the experts' ranks. There the rows lie as on full mesh: by (local expert,
              source rank, token). ``expand_scales`` holds each row's weight.
combine    3. An expert's rank hands its rows, with their ``expand_scales``, to the owner's relay in the server.
           4. The relay adds the rows of each token in fp32, in an order that dispatch decided: the first is multiplied
              by its weight, each further one is a multiply-add. The sum is rounded to the dtype of ``expand_x``, or
              to int8 with ``comm_quant_mode`` 2, and crosses the link.
           5. The owner adds the sums of the servers by ascending server in fp32 and rounds once more.

So the result differs from full mesh in its last bits. Combine's ``expert_scales`` takes no part in it, nor do the
values of its ``expert_ids``.

Sources: ops-transformer, ``op_kernel`` of both operators: ``*_v2_layered.h`` (A3), ``*_a2_layered.h`` (A2 in 2026,
which adds the rows of a token by ascending expert id) and the A2 kernels of 2025 (by ascending k, as on A3). Two things
do not follow from there and are decided here: the multiply-add is fused, one rounding, because ``Axpy`` and
``MulAddDst`` are single instructions whose documents name no rounding in between; and the handle is ours
(`contract.handle.row_places`), because the kernels' tables differ from version to version.

This file does steps 3 to 5 for all ranks at once, relay by relay; the CPU executor does them at the token's owner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ascend_moe.contract.errors import ConstraintError
from ascend_moe.contract.handle import doubled_row, missing_row, row_places, slots_of
from ascend_moe.contract.servers import Servers
from ascend_moe.contract.shapes import World
from ascend_moe.reference.batch import Batch
from ascend_moe.reference.quant import add_server_sum, empty_server_total, fused_multiply_add
from ascend_moe.reference.routing import Routes

HEADER = "npu_moe_distribute_combine_v2: the handles of the ranks do not fit the calls"


def write_handles(world: World, counts: Sequence[Tensor], pairs: Routes, per_rank: Tensor) -> None:
    """Dispatch: the place of each received row, behind the prefix sums of each rank's ``ep_recv_counts``.

    pairs: the rows of all ranks, receiver after receiver; a slot is a place
    per_rank: int64 (ranks,) how many of them each rank receives
    """
    places = torch.stack([pairs.token, pairs.slot], dim=1).int()
    of_rank = torch.split(places, per_rank.tolist())
    for rank, (words, own) in enumerate(zip(counts, of_rank, strict=True)):
        row_places(words, slots_of(world, rank), len(own))[:] = own


class _Rows(NamedTuple):
    """Rows of all ranks, as the handles describe them."""

    elements: Tensor
    weights: Tensor
    token: Tensor
    """int64, among the tokens of all ranks."""
    place: Tensor
    """int64, in the order of the token's sum."""
    server: Tensor
    """int64, where the row comes from."""

    def select(self, index: Tensor) -> _Rows:
        return _Rows(*(column[index] for column in self))


def combine_group(
    world: World,
    servers: Servers,
    calls: Sequence[Mapping[str, Any]],
    rows_of_rank: Sequence[Tensor],
) -> list[Tensor]:
    """Combine of one EP group: the (BS, H) result of every rank."""
    batch = Batch.of(calls)
    active = batch.active
    rows = _gather(world, servers, calls, rows_of_rank, batch)
    _require_each_row_once(rows, batch)
    rows = rows.select(active[rows.token, rows.place])

    # Steps 3 and 4: a relay's work is one (token, server).
    number = world.ep_world_size // servers.ranks_per_server
    relay = rows.token * number + rows.server
    order = torch.argsort(relay * active.shape[1] + rows.place)
    rows, relay = rows.select(order), relay[order]
    relays, added = torch.unique_consecutive(relay, return_counts=True)
    begin = added.cumsum(0) - added
    partial = torch.zeros(len(relays), rows.elements.shape[1])
    for nth in range(active.shape[1]):
        here = (added > nth).nonzero().squeeze(1)
        row = begin[here] + nth
        values, weights = rows.elements[row].float(), rows.weights[row, None]
        if nth == 0:
            partial[here] = values * weights
        else:
            partial[here] = fused_multiply_add(values, weights, partial[here])

    # Step 5.
    dtype, quantised = rows.elements.dtype, calls[0]["comm_quant_mode"]
    total = empty_server_total(len(active), rows.elements.shape[1], dtype, quantised)
    for server in range(number):
        arrived = (relays % number == server).nonzero().squeeze(1)
        owner = relays[arrived] // number
        total[owner] = add_server_sum(total[owner], partial[arrived], dtype, quantised)
    return list(torch.split(total.to(dtype), batch.sizes.tolist()))


def _gather(
    world: World,
    servers: Servers,
    calls: Sequence[Mapping[str, Any]],
    rows_of_rank: Sequence[Tensor],
    batch: Batch,
) -> _Rows:
    """The rows of all ranks; those of tokens that their rank does not have are left out, nobody reads them."""
    gathered = []
    for rank, (call, elements) in enumerate(zip(calls, rows_of_rank, strict=True)):
        slots = slots_of(world, rank)
        ends = call["ep_send_counts"][:slots].long()
        slot = torch.searchsorted(ends, torch.arange(len(elements)), right=True)
        source = slot % world.ep_world_size
        token, place = row_places(call["ep_send_counts"], slots, len(elements)).long().unbind(1)
        rows = _Rows(
            elements=elements,
            weights=call["expand_scales"][: len(elements)],
            token=batch.first[source] + token,
            place=place,
            server=torch.full_like(source, rank // servers.ranks_per_server),
        )
        gathered.append(rows.select(token < batch.sizes[source]))
    return _Rows(*(torch.cat(columns) for columns in zip(*gathered, strict=True)))


def _require_each_row_once(rows: _Rows, batch: Batch) -> None:
    """An active pair without a row would make the hardware wait for ever; two rows for one come from another call."""
    topk = batch.active.shape[1]
    came = torch.bincount(rows.token * topk + rows.place, minlength=batch.active.numel())
    missing = (batch.active.reshape(-1) & (came == 0)).nonzero()
    for wrong, violation in (((came > 1).nonzero(), doubled_row), (missing, missing_row)):
        if len(wrong):
            token, place = divmod(int(wrong[0]), topk)
            raise ConstraintError([violation(*batch.owner(token), place, len(wrong))], HEADER)
