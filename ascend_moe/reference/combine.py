"""Combine of a whole EP world in one process: expert outputs go home and are summed by weight.

Each rank owns the rows of its experts (``expand_x``) and the handle that dispatch gave it. A row goes to the place
(source, token, slot) it came from; there the slots are added in ascending order in fp32, each product rounded before
it is added, and the sum is rounded once, half to even, to the dtype of ``expand_x``:

    slots 0 .. K-1   MoE row * weight; zero expert: nothing; copy expert: ori_x * weight; const expert: see below
    slots K ..       shared expert rows, unweighted
    shared_expert_x  unweighted, last

A const expert c gives ``s1 * ori_x + s2 * v[c]``, where (s1, s2) is the softmax of the scores ``alpha_1[c] . ori_x``
and ``alpha_2[c] . ori_x``. The operators' documents leave the order of these sums open; `const_expert_rows` defines
it, and all implementations of this project follow it bit for bit.

How a row finds its place is what differs between the products: A3 reads the triples in ``assist_info_for_combine``,
A2 counts (see `_places_a2`). The hierarchy path, where servers add before rows go home, is `hierarchy.combine_group`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ascend_moe.contract.errors import ConstraintError
from ascend_moe.contract.handle import doubled_row, missing_row, rows_received, slots_of
from ascend_moe.contract.shapes import World
from ascend_moe.reference import hierarchy
from ascend_moe.reference.calls import normalise
from ascend_moe.reference.quant import through_comm_quant
from ascend_moe.reference.routing import active_pairs

HEADER = "npu_moe_distribute_combine_v2: the handles of the ranks do not fit the calls"


def combine_world(
    calls: Sequence[Mapping[str, Any]],
    *,
    product: str | None = None,
    contract: str | None = None,
    check: bool = True,
) -> list[Tensor]:
    """What ``npu_moe_distribute_combine_v2`` returns on every rank of an EP world.

    calls: one dict of the operator's own keywords per rank, in the order of `dispatch_world`; the handle is
        dispatch's: ``assist_info_for_combine``, ``ep_send_counts`` (= ``ep_recv_counts``), ``tp_send_counts``.

    Returns one (BS, H) tensor per call in the dtype of ``expand_x``. Rows of inactive tokens are zero (hardware
    leaves them unwritten). Raises ConstraintError as `dispatch_world` does, and when the handles do not fit the
    calls: an active (token, k) for which no rank, or more than one, has a row (rule E-08).
    """
    world_calls = normalise("combine", calls, product=product, contract=contract, check=check)
    if world_calls.servers is not None:
        calls = world_calls.arguments
        rows = [call["expand_x"][: rows_received(world_calls.world, call)] for call in calls]
        return hierarchy.combine_group(world_calls.world, world_calls.servers, calls, rows)
    tp = world_calls.tp_world_size
    outputs: list[Tensor] = [torch.empty(0)] * len(calls)
    for plane in range(tp):
        group = world_calls.arguments[plane::tp]
        peers = world_calls.arguments[1 - plane :: tp] if tp == 2 else [None] * len(group)
        rows = [
            _own_rows(world_calls.world, call, peer)
            for call, peer in zip(group, peers, strict=True)
        ]
        outputs[plane::tp] = _combine_group(world_calls.world, world_calls.product, group, rows)
    return outputs


def _own_rows(world: World, call: Mapping[str, Any], peer: Mapping[str, Any] | None) -> Tensor:
    """The rows a rank sends home, as they arrive there.

    With TP both members of the pair hold both members' rows (own first): the two copies of a row are added in fp32
    and rounded to its dtype before anything else. ``comm_quant_mode`` 2 sends rows as int8.
    """
    count = rows_received(world, call)
    rows: Tensor = call["expand_x"][:count]
    if peer is not None:
        copy = peer["expand_x"][rows_received(world, peer) :][:count]
        rows = (rows.float() + copy.float()).to(rows.dtype)
    return through_comm_quant(rows) if call["comm_quant_mode"] else rows


def _combine_group(
    world: World, product: str, calls: Sequence[Mapping[str, Any]], rows_of_rank: Sequence[Tensor]
) -> list[Tensor]:
    """One EP group: all tokens of all ranks as one batch."""
    batch_sizes = [len(call["expert_ids"]) for call in calls]
    first_token = torch.tensor([0, *batch_sizes]).cumsum(0)
    ids = torch.cat([call["expert_ids"] for call in calls]).long()
    active = torch.cat([active_pairs(call["expert_ids"], call["x_active_mask"]) for call in calls])
    weights = torch.cat([_weights(call) for call in calls])
    rows = torch.cat(list(rows_of_rank))

    places = _places_a2 if product == "A2" else _places_a3
    row_of = places(world, calls, [len(rows) for rows in rows_of_rank], first_token, ids, active)
    travelled = torch.zeros_like(row_of, dtype=torch.bool)
    travelled[:, : ids.shape[1]] = active & (ids < world.moe_expert_num)
    travelled[:, ids.shape[1] :] = active.any(dim=1, keepdim=True)
    _require_rows(row_of, travelled, first_token)

    total = torch.zeros(len(ids), rows.shape[1])
    for slot in range(row_of.shape[1]):
        arrived = travelled[:, slot].nonzero().squeeze(1)
        contribution = rows[row_of[arrived, slot]].float()
        if slot < ids.shape[1]:
            contribution = contribution * weights[arrived, slot, None]
        total[arrived] += contribution
        if slot < ids.shape[1]:
            _add_special_experts(
                world, calls, ids[:, slot], active[:, slot], weights[:, slot], total
            )
    _add_shared_expert_x(calls, active.any(dim=1), total)
    return list(torch.split(total.to(rows.dtype), batch_sizes))


def _weights(call: Mapping[str, Any]) -> Tensor:
    """``expert_scales``; an empty tensor means "no weights" (from CANN 9.1 on)."""
    weights: Tensor = call["expert_scales"]
    return (
        weights
        if weights.shape == call["expert_ids"].shape
        else torch.ones(call["expert_ids"].shape)
    )


def _places_a3(
    world: World,
    calls: Sequence[Mapping[str, Any]],
    counts: Sequence[int],
    first_token: Tensor,
    ids: Tensor,
    active: Tensor,
) -> Tensor:
    """Row number (in all ranks' rows) of every (token, slot) by the triples (source, token, slot); -1 where none."""
    slots = ids.shape[1] + world.shared_expert_num
    triples = torch.cat(
        [
            call["assist_info_for_combine"][: 3 * count].view(-1, 3)
            for call, count in zip(calls, counts, strict=True)
        ]
    ).long()
    known = (
        triples[:, 1] < first_token.diff()[triples[:, 0]]
    )  # a token that its rank does not have is never read
    triples, row = triples[known], known.nonzero().squeeze(1)
    place = (first_token[triples[:, 0]] + triples[:, 1]) * slots + triples[:, 2]
    doubled = (torch.bincount(place) > 1).nonzero()
    if len(doubled):
        rank, token, slot = triples[(place == doubled[0]).nonzero()[0, 0]].tolist()
        raise ConstraintError([doubled_row(rank, token, slot, len(doubled))], HEADER)
    row_of = torch.full((len(ids) * slots,), -1)
    row_of[place] = row
    return row_of.view(len(ids), slots)


def _places_a2(
    world: World,
    calls: Sequence[Mapping[str, Any]],
    counts: Sequence[int],
    first_token: Tensor,
    ids: Tensor,
    active: Tensor,
) -> Tensor:
    """The same on A2, where the sender kept the ordinal of each pair among its pairs to the same expert.

    On the expert's rank the rows of (local expert, source) start where the prefix sums of ``ep_send_counts`` say;
    the ordinal counts from there.
    """
    ends = torch.stack(
        [call["ep_send_counts"][: slots_of(world, call["ep_rank_id"])] for call in calls]
    ).long()
    starts = torch.nn.functional.pad(ends[:, :-1], (1, 0))
    first_row = torch.tensor([0, *counts]).cumsum(0)[:-1]
    source = torch.repeat_interleave(torch.arange(len(calls)), first_token.diff())
    ordinal = torch.cat(
        [
            call["assist_info_for_combine"][: call["expert_ids"].numel()].view(
                call["expert_ids"].shape
            )
            for call in calls
        ]
    )
    sent = active & (ids < world.moe_expert_num)
    expert = ids.where(sent, 0)
    owner, local = expert // world.local_expert_num, expert % world.local_expert_num
    slot = local * world.ep_world_size + source[:, None]
    arrived = sent & (ordinal < (ends - starts)[owner, slot])
    return (first_row[owner] + starts[owner, slot] + ordinal).where(arrived, -1)


def _require_rows(row_of: Tensor, travelled: Tensor, first_token: Tensor) -> None:
    """An active pair without a row would make the hardware wait for ever."""
    missing = (travelled & (row_of < 0)).nonzero()
    if len(missing):
        token, slot = (int(index) for index in missing[0])
        rank = int(torch.searchsorted(first_token, token, right=True)) - 1
        violation = missing_row(rank, token - int(first_token[rank]), slot, len(missing))
        raise ConstraintError([violation], HEADER)


def _add_special_experts(
    world: World,
    calls: Sequence[Mapping[str, Any]],
    ids: Tensor,
    active: Tensor,
    weights: Tensor,
    total: Tensor,
) -> None:
    """Slot by slot: copy experts give ori_x, const experts a blend of ori_x and their constant, zero experts nothing.

    ids, active, weights: (tokens,) of one slot.
    """
    first = calls[0]
    copy_from = world.moe_expert_num + first["zero_expert_num"]
    const_from = copy_from + first["copy_expert_num"]
    const_until = const_from + first["const_expert_num"]
    copied = (active & (ids >= copy_from) & (ids < const_from)).nonzero().squeeze(1)
    blended = (active & (ids >= const_from) & (ids < const_until)).nonzero().squeeze(1)
    if not len(copied) + len(blended):
        return
    tokens = torch.cat([call["ori_x"] for call in calls])
    total[copied] += tokens[copied].float() * weights[copied, None]
    if len(blended):
        source = torch.repeat_interleave(
            torch.arange(len(calls)), torch.tensor([len(call["ori_x"]) for call in calls])
        )
        expert = ids[blended] - const_from
        alpha_1, alpha_2, constant = (
            torch.stack([call[name] for call in calls])[source[blended], expert].float()
            for name in ("const_expert_alpha_1", "const_expert_alpha_2", "const_expert_v")
        )
        blend = const_expert_rows(tokens[blended].float(), alpha_1, alpha_2, constant)
        total[blended] += blend * weights[blended, None]


def const_expert_rows(x: Tensor, alpha_1: Tensor, alpha_2: Tensor, constant: Tensor) -> Tensor:
    """What const experts make of tokens: ``s1 * x + s2 * constant``; all fp32 (n, H), as is the result.

    Every operation is rounded to fp32. A score is the sum of H products, the upper half folded onto the lower until
    one is left: the order in which a vector unit adds without idle lanes. (s1, s2) are ``exp(score - largest score)``,
    correctly rounded, divided by their sum. An NPU's exp instruction rounds in its own way, so on hardware a share may
    be a few units in the last place away, and an output element one rounding; the rest is exact there too.
    """
    scores = torch.stack([_folded_sum(alpha * x) for alpha in (alpha_1, alpha_2)])
    powers = (scores - scores.amax(dim=0)).double().exp().float()
    share = (powers / powers.sum(dim=0)).unsqueeze(2)
    return share[0] * x + share[1] * constant


def _folded_sum(terms: Tensor) -> Tensor:
    """Sum over the last dimension; overwrites ``terms``.

    Each step adds the elements from the largest power of two below the length on to the first elements.
    """
    length = terms.shape[-1]
    while length > 1:
        kept = 1 << (length - 1).bit_length() - 1
        terms[..., : length - kept] += terms[..., kept:length]
        length = kept
    return terms[..., 0]


def _add_shared_expert_x(calls: Sequence[Mapping[str, Any]], active: Tensor, total: Tensor) -> None:
    """The caller's own shared expert output, once per active token, unweighted."""
    if calls[0]["shared_expert_x"] is None:
        return
    shared = torch.cat([call["shared_expert_x"].reshape(-1, total.shape[1]) for call in calls])
    total[active] += shared[active].float()
