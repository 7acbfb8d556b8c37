"""Which row goes where: the routing both operators and every executor share.

A *pair* is one (token, slot) of a source rank. Slot ``k < K`` is the k-th chosen expert of the token, slot ``K + s``
its copy for shared expert ``s``. A pair becomes one *row* on the rank that holds the expert:

* MoE expert ``e`` lives on rank ``shared_expert_rank_num + e // local_expert_num`` as local expert
  ``e % local_expert_num``;
* shared expert ``s`` is replicated on ``replicas`` ranks; source rank ``p`` uses rank ``s * replicas + p % replicas``;
* ids at or above ``moe_expert_num`` (zero, copy and const experts) are never sent: combine computes them locally;
* pairs of inactive tokens are not sent.

A receiver orders its rows by (local expert, source rank, token, slot). That order is the whole protocol: counts,
prefix sums and the combine of both products follow from it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ascend_moe.contract.shapes import World


class Routes(NamedTuple):
    """Pairs that travel, one entry each, as int64 tensors of equal length.

    Sorted by (destination, local_expert, source, token, slot): each destination finds its rows in its own order.
    """

    source: Tensor
    """EP rank that owns the token."""
    token: Tensor
    """Index of the token on its source rank."""
    slot: Tensor
    """k, or K + s for shared expert s."""
    destination: Tensor
    """EP rank that holds the expert."""
    local_expert: Tensor
    """Index of the expert on its rank; 0 on a shared rank."""
    scale_row: Tensor
    """Row of the smooth ``scales``: shared experts first, then MoE experts."""

    def select(self, index: Tensor) -> Routes:
        """The pairs at ``index`` (positions or a mask), in that order."""
        return Routes(*(column[index] for column in self))


def active_pairs(expert_ids: Tensor, x_active_mask: Tensor | None) -> Tensor:
    """Which (token, k) take part: bool of shape (BS, K).

    A 1-D mask is only *counted*, as the kernels do: with n true entries the first n tokens are active.
    """
    bs, topk = expert_ids.shape
    if x_active_mask is None:
        return torch.ones(bs, topk, dtype=torch.bool)
    if x_active_mask.dim() == 1:
        active_tokens = torch.arange(bs) < x_active_mask.sum()
        return active_tokens[:, None].expand(bs, topk)
    return x_active_mask


def routes(
    world: World, source: Tensor, token: Tensor, expert_ids: Tensor, active: Tensor
) -> Routes:
    """The pairs that leave their source rank.

    source, token: int64 (N,), the rank that owns each token and the token's index there, in ascending order
    expert_ids:    int32 (N, K)
    active:        bool (N, K)
    """
    topk = expert_ids.shape[1]
    ids = expert_ids.long()
    row, slot = torch.nonzero(active & (ids < world.moe_expert_num), as_tuple=True)
    expert = ids[row, slot]
    to_moe_experts = Routes(
        source=source[row],
        token=token[row],
        slot=slot,
        destination=world.shared_expert_rank_num + expert // world.local_expert_num,
        local_expert=expert % world.local_expert_num,
        scale_row=world.shared_expert_num + expert,
    )
    row = torch.nonzero(active.any(dim=1), as_tuple=True)[0]
    replicas = world.replicas_per_shared_expert
    to_shared_experts = [
        Routes(
            source=source[row],
            token=token[row],
            slot=torch.full_like(row, topk + shared),
            destination=shared * replicas + source[row] % replicas,
            local_expert=torch.zeros_like(row),
            scale_row=torch.full_like(row, shared),
        )
        for shared in range(world.shared_expert_num)
    ]
    found = [to_moe_experts, *to_shared_experts]
    pairs = Routes(*(torch.cat(columns) for columns in zip(*found, strict=True)))
    order = torch.argsort(
        pairs.destination * world.local_expert_num + pairs.local_expert, stable=True
    )
    return pairs.select(order)


def ordinals_at_sender(world: World, expert_ids: Tensor, active: Tensor) -> Tensor:
    """A2's ``assist_info_for_combine``: for each pair, how many earlier pairs this rank sends to the same expert.

    Returns int32 (BS, K); 0 where nothing is sent (inactive pairs and zero, copy or const experts).
    """
    ids = expert_ids.long()
    sent = (active & (ids < world.moe_expert_num)).reshape(-1)
    expert = ids.reshape(-1)[sent]
    order = torch.argsort(expert, stable=True)
    count = torch.bincount(expert, minlength=world.moe_expert_num)
    first = count.cumsum(0) - count
    ordinal = torch.empty_like(expert)
    ordinal[order] = torch.arange(len(expert)) - first[expert[order]]
    table = torch.zeros(ids.numel(), dtype=torch.int32)
    table[sent] = ordinal.int()
    return table.view(ids.shape)
