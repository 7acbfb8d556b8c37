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

All ranks are summed as one `Batch`. Whatever a token adds becomes a row of one table: rows that came home, ``ori_x``,
blends, ``shared_expert_x`` and, for a place that adds nothing, zeros. The sum itself (`_sum`) then knows nothing but
row numbers and weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ascend_moe.contract.errors import ConstraintError
from ascend_moe.contract.handle import doubled_row, missing_row, rows_received, slots_of
from ascend_moe.contract.shapes import World
from ascend_moe.outputs import fresh, joined
from ascend_moe.reference import hierarchy
from ascend_moe.reference.batch import Batch
from ascend_moe.reference.calls import normalise
from ascend_moe.reference.quant import through_comm_quant

HEADER = "npu_moe_distribute_combine_v2: the handles of the ranks do not fit the calls"

_BLOCK_ELEMENTS = 1 << 18
"""Elements that are multiplied and added at a time: 1 MiB of fp32, which a core keeps in its cache."""


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

    Returns one (BS, H) tensor per call in the dtype of ``expand_x``; all are views of one tensor. Rows of inactive
    tokens are zero (hardware leaves them unwritten). Raises ConstraintError as `dispatch_world` does, and when the
    handles do not fit the calls: an active (token, k) for which no rank, or more than one, has a row (rule E-08).
    """
    world_calls = normalise("combine", calls, product=product, contract=contract, check=check)
    world, tp, calls = world_calls.world, world_calls.tp_world_size, world_calls.arguments
    counts = [rows_received(world, call) for call in calls]
    rows = [call["expand_x"][:count] for call, count in zip(calls, counts, strict=True)]
    if world_calls.servers is not None:
        return hierarchy.combine_group(world, world_calls.servers, calls, rows)
    if tp == 2:
        rows = _with_copies_of_peers(calls, counts, rows)
    if calls[0]["comm_quant_mode"]:
        rows = [through_comm_quant(own) for own in rows]
    outputs: list[Tensor] = [torch.empty(0)] * len(calls)
    for plane in range(tp):
        outputs[plane::tp] = _combine_group(
            world, world_calls.product, calls[plane::tp], rows[plane::tp]
        )
    return [outputs[position] for position in world_calls.positions]


def _with_copies_of_peers(
    calls: Sequence[Mapping[str, Any]], counts: Sequence[int], rows: Sequence[Tensor]
) -> list[Tensor]:
    """TP: both members of a pair hold both members' rows, own first.

    The two copies of a row are added in fp32 and rounded to its dtype before anything else.
    """
    added = []
    for index, own in enumerate(rows):
        peer = index ^ 1
        copy = calls[peer]["expand_x"][counts[peer] :][: counts[index]]
        added.append((own.float() + copy.float()).to(own.dtype))
    return added


def _combine_group(
    world: World, product: str, calls: Sequence[Mapping[str, Any]], rows_of_rank: Sequence[Tensor]
) -> list[Tensor]:
    """One EP group: all tokens of all ranks as one batch."""
    batch = Batch.of(calls)
    topk, hidden, dtype = batch.ids.shape[1], rows_of_rank[0].shape[1], rows_of_rank[0].dtype
    takes_part = batch.active.any(dim=1, keepdim=True)
    places = _places_a2 if product == "A2" else _places_a3
    row_of = places(world, calls, [rows.size(0) for rows in rows_of_rank], batch)
    travelled = takes_part.repeat(1, row_of.shape[1])
    travelled[:, :topk] = batch.active & (batch.ids < world.moe_expert_num)
    _require_rows(row_of, travelled, batch)

    # The table: rows that came home, then what needs no journey.
    row_of = row_of.where(travelled, -1)
    table = [*rows_of_rank]
    end = sum(rows.size(0) for rows in table)
    for chosen, rows in _special_experts(world, calls, batch):
        row_of[:, :topk][chosen] = torch.arange(end, end + len(rows))
        table.append(rows)
        end += len(rows)
    if calls[0]["shared_expert_x"] is not None:
        row = torch.arange(end, end + len(takes_part))[:, None]
        row_of = torch.cat([row_of, row.where(takes_part, -1)], dim=1)
        table += [call["shared_expert_x"].reshape(-1, hidden) for call in calls]
        end += len(takes_part)
    table.append(torch.zeros(1, hidden, dtype=dtype))

    unweighted = row_of.shape[1] - topk
    weights = torch.nn.functional.pad(_weights(calls), (0, unweighted), value=1.0)
    adds = row_of >= 0
    total = _sum(joined(table), row_of.where(adds, end), weights.where(adds, 0.0), dtype)
    return list(torch.split(total, batch.sizes.tolist()))


def _sum(table: Tensor, row_of: Tensor, weights: Tensor, dtype: torch.dtype) -> Tensor:
    """Row * weight added up in fp32, one place after the other, for each token; (tokens, H) in ``dtype``.

    row_of, weights: (tokens, places). The tokens are cut into blocks that fit a cache.
    """
    tokens, hidden = len(row_of), table.shape[1]
    result = fresh((tokens, hidden), dtype)
    step = max(_BLOCK_ELEMENTS // hidden, 1)
    for begin in range(0, tokens, step):
        block = slice(begin, begin + step)
        total = torch.zeros(len(row_of[block]), hidden)
        for row, weight in zip(row_of[block].unbind(1), weights[block].unbind(1), strict=True):
            total += table.index_select(0, row).float().mul_(weight[:, None])
        result[block] = total
    return result


def _weights(calls: Sequence[Mapping[str, Any]]) -> Tensor:
    """``expert_scales``; an empty tensor means "no weights" (from CANN 9.1 on)."""
    return torch.cat(
        [
            call["expert_scales"]
            if call["expert_scales"].shape == call["expert_ids"].shape
            else torch.ones(call["expert_ids"].shape)
            for call in calls
        ]
    )


def _places_a3(
    world: World,
    calls: Sequence[Mapping[str, Any]],
    counts: Sequence[int],
    batch: Batch,
) -> Tensor:
    """Row number (in all ranks' rows) of every (token, slot) by the triples (source, token, slot); -1 where none."""
    slots = batch.ids.shape[1] + world.shared_expert_num
    triples = torch.cat(
        [
            call["assist_info_for_combine"][: 3 * count]
            for call, count in zip(calls, counts, strict=True)
        ]
    )
    triples = triples.view(-1, 3).long()
    # A token that its rank does not have is never read.
    known = triples[:, 1] < batch.sizes[triples[:, 0]]
    triples, row = triples[known], known.nonzero().squeeze(1)
    place = (batch.first[triples[:, 0]] + triples[:, 1]) * slots + triples[:, 2]
    doubled = (torch.bincount(place) > 1).nonzero()
    if len(doubled):
        rank, token, slot = triples[(place == doubled[0]).nonzero()[0, 0]].tolist()
        raise ConstraintError([doubled_row(rank, token, slot, len(doubled))], HEADER)
    row_of = torch.full((len(batch.ids) * slots,), -1)
    row_of[place] = row
    return row_of.view(-1, slots)


def _places_a2(
    world: World,
    calls: Sequence[Mapping[str, Any]],
    counts: Sequence[int],
    batch: Batch,
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
    ordinal = torch.cat(
        [
            call["assist_info_for_combine"][: call["expert_ids"].numel()].view(
                call["expert_ids"].shape
            )
            for call in calls
        ]
    )
    sent = batch.active & (batch.ids < world.moe_expert_num)
    expert = batch.ids.where(sent, 0)
    owner, local = expert // world.local_expert_num, expert % world.local_expert_num
    slot = local * world.ep_world_size + batch.source[:, None]
    arrived = sent & (ordinal < (ends - starts)[owner, slot])
    return (first_row[owner] + starts[owner, slot] + ordinal).where(arrived, -1)


def _require_rows(row_of: Tensor, travelled: Tensor, batch: Batch) -> None:
    """An active pair without a row would make the hardware wait for ever."""
    missing = (travelled & (row_of < 0)).nonzero()
    if len(missing):
        token, slot = (int(index) for index in missing[0])
        raise ConstraintError([missing_row(*batch.owner(token), slot, len(missing))], HEADER)


def _special_experts(
    world: World, calls: Sequence[Mapping[str, Any]], batch: Batch
) -> Iterator[tuple[Tensor, Tensor]]:
    """Copy experts give ori_x, const experts a blend of ori_x and their constant, zero experts nothing.

    Yields which (token, k) chose such an expert, bool (tokens, K), and a row for each of them in that order.
    """
    first = calls[0]
    copy_from = world.moe_expert_num + first["zero_expert_num"]
    const_from = copy_from + first["copy_expert_num"]
    const_until = const_from + first["const_expert_num"]
    copied = batch.active & (batch.ids >= copy_from) & (batch.ids < const_from)
    blended = batch.active & (batch.ids >= const_from) & (batch.ids < const_until)
    if copied.any():
        yield copied, torch.cat([call["ori_x"] for call in calls])[copied.nonzero()[:, 0]]
    if blended.any():
        token = blended.nonzero()[:, 0]
        source, expert = batch.source[token], batch.ids[blended] - const_from
        alpha_1, alpha_2, constant = (
            torch.stack([call[name] for call in calls])[source, expert].float()
            for name in ("const_expert_alpha_1", "const_expert_alpha_2", "const_expert_v")
        )
        x = torch.cat([call["ori_x"] for call in calls])[token].float()
        yield blended, const_expert_rows(x, alpha_1, alpha_2, constant)


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
