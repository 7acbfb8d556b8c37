"""Checks that read tensor contents, through methods of the tensors: this file needs no torch.

Rows that the mask switches off may hold anything (callers pad with uninitialised memory), so only
active pairs (token, k) are looked at. A 1-D mask with n true entries activates tokens 0..n-1: the
kernels count it and never look at positions.
"""

from __future__ import annotations

from typing import Any

from ascend_moe.contract.call import Call, dtype_name
from ascend_moe.contract.elastic import words_of_group
from ascend_moe.contract.rules.rule import Breach, Finding
from ascend_moe.contract.signature import CANN_8_2

ND, FRACTAL_NZ = 2, 29  # numbers of torch_npu.get_npu_format


def readable(tensor: object) -> bool:
    """True for a tensor with contents: not a description, a meta tensor or a fake one."""
    if not hasattr(tensor, "tolist") or getattr(tensor, "is_meta", False):
        return False
    return type(tensor).__name__ != "FakeTensor"


def active_mask(call: Call) -> tuple[bool, Any]:
    """(readable, mask): the mask tensor if it is well shaped, None if every token is active."""
    mask: Any = call.mask
    if mask is None:
        return True, None
    well_shaped = tuple(mask.shape) in ((call.batch,), (call.batch, call.topk))
    return readable(mask) and well_shaped and dtype_name(mask) == "bool", mask


def active_ids(call: Call) -> tuple[Any, Any] | None:
    """(ids of active tokens, their 2-D mask or None), or None when contents cannot be read."""
    ids: Any = call.expert_ids
    known, mask = active_mask(call)
    if not known or not readable(ids) or call.topk is None or len(ids.shape) != 2:
        return None
    if mask is None:
        return ids, None
    if len(mask.shape) == 1:
        return ids[: int(mask.sum())], None
    return ids, mask


def mask_order(call: Call) -> Finding:
    """X-34."""
    known, mask = active_mask(call)
    if not known or mask is None:
        return None
    if len(mask.shape) == 2:
        if call.contract != CANN_8_2:
            return None
        mask = mask.any(dim=1)
    count = int(mask.sum())
    if bool(mask[:count].all()):
        return None
    first_gap = mask.tolist().index(False)
    late = mask.tolist().index(True, first_gap)
    return Breach(late, f"all {count} active tokens first")


def ids_in_range(call: Call) -> Finding:
    """X-36."""
    active, total = active_ids(call), call.experts_total + _experts_gone(call)
    if active is None or total <= 0:
        return None
    ids, pairs = active
    picked = ids if pairs is None else ids[pairs]
    if picked.numel() == 0:
        return None
    low, high = int(picked.min()), int(picked.max())
    if low < 0:
        return Breach(low, f"0..{total - 1}")
    if high >= total:
        return Breach(high, f"0..{total - 1}")
    return None


def _experts_gone(call: Call) -> int:
    """How many MoE experts elastic_info adds: not more than 0. What is wrong with it, its own rules say."""
    info: Any = call.elastic_info
    if not readable(info) or tuple(info.shape) != (words_of_group(call.ep_world_size),):
        return 0
    words = info.tolist()
    return min(int(words[3]) - call.moe_expert_num, 0) if words[0] == 1 else 0


def ids_distinct(call: Call) -> Finding:
    """X-37."""
    active = active_ids(call)
    if active is None or call.topk == 1:
        return None
    ids, pairs = active
    if ids.shape[0] == 0:
        return None
    if pairs is not None:
        # An inactive pair gets a number of its own, beyond 32 bits, so that it equals nothing.
        ids = ids.long()
        ids = ids.where(pairs, ids.new_ones(ids.shape).cumsum(dim=1) + 2**32)
    ordered = ids.sort(dim=1).values
    repeated = (ordered[:, 1:] == ordered[:, :-1]).any(dim=1)
    if not bool(repeated.any()):
        return None
    token = repeated.tolist().index(True)
    row = ids[token].tolist()
    twice = next(expert for expert in row if row.count(expert) > 1)
    return Breach(f"token {token} names expert {twice} twice", "distinct experts per token")


def storage_format(call: Call) -> Finding:
    """X-38."""
    tokens: Any = call.tokens
    if getattr(getattr(tokens, "device", None), "type", "") != "npu":
        return None
    import torch_npu  # type: ignore[import-not-found,import-untyped,unused-ignore]

    if int(torch_npu.get_npu_format(tokens)) == FRACTAL_NZ:
        return Breach("FRACTAL_NZ", "ND")
    return None
