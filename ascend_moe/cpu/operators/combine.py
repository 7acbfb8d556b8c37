"""Combine on one rank: which rows go home, and how what came home is summed.

The sum runs over the slots in ascending order, in fp32, each product rounded before it is added (kernels do not fuse),
and is rounded once at the end. The order is part of the operators' promise; nothing here may change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ascend_moe.contract.errors import Violation
from ascend_moe.contract.handle import doubled_row, missing_row, rows_received, slots_of
from ascend_moe.contract.shapes import World
from ascend_moe.cpu.operators.wire import Rows, pack
from ascend_moe.reference.combine import const_expert_rows
from ascend_moe.reference.quant import through_comm_quant
from ascend_moe.reference.routing import active_pairs


class Homeward(NamedTuple):
    """Rows on their way to the ranks that own the tokens."""

    buffer: Tensor
    """Wire buffer, grouped by destination."""
    counts: list[int]
    """Rows for each rank."""


def own_rows(world: World, call: Mapping[str, Any]) -> Tensor:
    """The rows of this rank's own tokens' pairs; with TP the peer's rows follow them in ``expand_x``."""
    rows: Tensor = call["expand_x"][: rows_received(world, call)]
    return rows


def add_tp_copy(rows: Tensor, copy: Tensor) -> Tensor:
    """Reduce-scatter of a TP pair: both copies of a row are added in fp32 and rounded to the dtype of the rows."""
    return (rows.float() + copy.float()).to(rows.dtype)


def homeward(world: World, call: Mapping[str, Any], product: str, rows: Tensor) -> Homeward:
    """Groups this rank's rows by the rank they came from."""
    if call["comm_quant_mode"]:
        rows = through_comm_quant(rows)
    place = torch.zeros(len(rows), 3, dtype=torch.int64)
    if product == "A2":
        ends = call["ep_send_counts"][: slots_of(world, call["ep_rank_id"])].long()
        per_slot = torch.diff(ends, prepend=ends.new_zeros(1))
        slot = torch.repeat_interleave(torch.arange(len(ends)), per_slot)
        source = slot % world.ep_world_size
        place[:, 0] = torch.arange(len(rows)) - (ends - per_slot)[slot]
        place[:, 2] = slot // world.ep_world_size
    else:
        triples = call["assist_info_for_combine"][: 3 * len(rows)].view(-1, 3)
        source = triples[:, 0].long()
        place[:, :2] = triples[:, 1:]
    order = torch.argsort(source, stable=True)
    counts = torch.bincount(source, minlength=world.ep_world_size)
    return Homeward(pack(rows[order], place[order]), counts.tolist())


class Home(NamedTuple):
    """Where the row of every (token, slot) of this rank is among the rows that came home."""

    row_of: Tensor
    """int64 (BS, K + shared experts); -1 where none came."""
    travelled: Tensor
    """bool, same shape: pairs for which a row must have come."""
    violations: list[Violation]


def find_rows(
    world: World, call: Mapping[str, Any], product: str, rows: Rows, receive_counts: list[int]
) -> Home:
    """Matches the rows that came home with this rank's pairs, by what the senders wrote on them."""
    ids = call["expert_ids"].long()
    bs, topk = ids.shape
    slots = topk + world.shared_expert_num
    active = active_pairs(call["expert_ids"], call["x_active_mask"])
    travelled = torch.zeros(bs, slots, dtype=torch.bool)
    travelled[:, :topk] = active & (ids < world.moe_expert_num)
    travelled[:, topk:] = active.any(dim=1, keepdim=True)
    violations = []
    if product == "A2":
        row_of = _rows_by_count(world, call, rows, receive_counts, travelled)
    else:
        row_of = torch.full((bs * slots,), -1)
        token, slot = rows.place[:, 0].long(), rows.place[:, 1].long()
        # A token that this rank does not have is never read.
        known = (token < bs).nonzero().squeeze(1)
        place = token[known] * slots + slot[known]
        row_of[place] = known
        doubled = (torch.bincount(place) > 1).nonzero()
        if len(doubled):
            where, at = divmod(int(doubled[0]), slots)
            violations.append(doubled_row(call["ep_rank_id"], where, at, len(doubled)))
        row_of = row_of.view(bs, slots)
    missing = (travelled & (row_of < 0)).nonzero()
    if len(missing):
        token_slot = (int(missing[0, 0]), int(missing[0, 1]))
        violations.append(missing_row(call["ep_rank_id"], *token_slot, len(missing)))
    return Home(row_of, travelled, violations)


def _rows_by_count(
    world: World, call: Mapping[str, Any], rows: Rows, receive_counts: list[int], travelled: Tensor
) -> Tensor:
    """A2: rows of one expert come in the order of the ordinals that dispatch gave this rank's pairs."""
    ids = call["expert_ids"].long()
    owner = torch.repeat_interleave(torch.arange(world.ep_world_size), torch.tensor(receive_counts))
    expert = owner * world.local_expert_num + rows.place[:, 2].long()
    per_expert = torch.bincount(expert, minlength=world.moe_expert_num)
    first = per_expert.cumsum(0) - per_expert
    ordinal: Tensor = call["assist_info_for_combine"][: ids.numel()].view(ids.shape).long()
    wanted = ids.where(travelled, 0)
    row = first[wanted] + ordinal
    return row.where(travelled & (ordinal < per_expert[wanted]), -1)


def weighted_sum(world: World, call: Mapping[str, Any], elements: Tensor, home: Home) -> Tensor:
    """One output row per token; inactive tokens give zeros."""
    ids = call["expert_ids"].long()
    topk = ids.shape[1]
    weights = call["expert_scales"]
    if weights.shape != ids.shape:
        weights = torch.ones(ids.shape)  # an empty tensor: no weights
    active = active_pairs(call["expert_ids"], call["x_active_mask"])
    total = torch.zeros(len(ids), elements.shape[1])
    for slot in range(topk + world.shared_expert_num):
        token = home.travelled[:, slot].nonzero().squeeze(1)
        rows = elements.index_select(0, home.row_of[token, slot]).float()
        if slot < topk:
            rows *= weights[token, slot, None]
        total.index_add_(0, token, rows)
        if slot < topk:
            _add_special_expert(world, call, slot, active, weights, total)
    if call["shared_expert_x"] is not None:
        token = active.any(dim=1).nonzero().squeeze(1)
        total[token] += call["shared_expert_x"].reshape(total.shape)[token].float()
    return total.to(elements.dtype)


def _add_special_expert(
    world: World, call: Mapping[str, Any], slot: int, active: Tensor, weights: Tensor, total: Tensor
) -> None:
    """Copy experts (``ori_x``) and const experts (a softmax blend with their constant); zero experts add nothing."""
    copies, constants = call["copy_expert_num"], call["const_expert_num"]
    if not copies + constants:
        return
    first_copy = world.moe_expert_num + call["zero_expert_num"]
    special = call["expert_ids"][:, slot].long() - first_copy
    here = active[:, slot] & (special >= 0)
    token = (here & (special < copies)).nonzero().squeeze(1)
    total[token] += call["ori_x"][token].float() * weights[token, slot, None]
    token = (here & (special >= copies)).nonzero().squeeze(1)
    if not len(token):
        return
    expert = special[token] - copies
    alpha_1, alpha_2, constant = (
        call[name][expert].float()
        for name in ("const_expert_alpha_1", "const_expert_alpha_2", "const_expert_v")
    )
    blend = const_expert_rows(call["ori_x"][token].float(), alpha_1, alpha_2, constant)
    total[token] += blend * weights[token, slot, None]
