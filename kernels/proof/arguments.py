"""What kernels take by value, as ``kernels/device/abi.h`` lays it out, made from the operators' own keywords."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping
from typing import Any

import torch

from ascend_moe.contract.shapes import World

ELEMENTS = {torch.bfloat16: 0, torch.float16: 1, torch.int32: 2}


class Parameters(ctypes.Structure):
    """``ascend_moe::Parameters`` of ``kernels/device/abi.h``."""

    _fields_ = [
        (name, ctypes.c_uint32)
        for name in (
            "batch", "max_batch", "hidden", "topk", "moe_experts", "local_experts",
            "shared_experts", "shared_ranks", "zero_experts", "copy_experts", "const_experts",
            "element", "mask", "quant", "smooth", "cumulative_counts", "capacity", "comm_quant",
            "shared_x", "tp", "waits", "timeout_ticks",
        )
    ]  # fmt: skip


class Meeting(ctypes.Structure):
    """``ascend_moe::Meeting``: what a rank brings to the meeting before a group is opened."""

    _fields_ = [
        ("nonce", ctypes.c_uint32 * 2),
        ("statement", ctypes.c_uint32 * 3),
        ("timeout_ticks", ctypes.c_uint32),
    ]


class Packing(ctypes.Structure):
    """``ascend_moe::Packing``: a tensor of up to three dimensions; strides in bytes."""

    _fields_ = [
        ("size", ctypes.c_uint32 * 3),
        ("element_bytes", ctypes.c_uint32),
        ("stride", ctypes.c_uint64 * 3),
    ]


def meeting(rank: int, nonce: int) -> Meeting:
    """What a rank brings to the meeting before the group has this nonce."""
    return Meeting(nonce=(nonce ^ rank, rank + 1), statement=(1, rank, 3))


def parameters(op: str, call: Mapping[str, Any]) -> Parameters:
    """The kernel parameters of one call; ``call`` has every keyword of the operator."""
    world = World.of_call(call)
    rows = call["x"] if op == "dispatch" else call["expand_x"]
    batch, topk = call["expert_ids"].shape
    mask = call["x_active_mask"]
    given = Parameters(
        batch=batch,
        max_batch=(call["global_bs"] or batch * call["ep_world_size"]) // call["ep_world_size"],
        hidden=rows.shape[1],
        topk=topk,
        moe_experts=call["moe_expert_num"],
        local_experts=world.local_expert_num,
        shared_experts=world.shared_expert_num,
        shared_ranks=call["shared_expert_rank_num"],
        zero_experts=call["zero_expert_num"],
        copy_experts=call["copy_expert_num"],
        const_experts=call["const_expert_num"],
        element=ELEMENTS[rows.dtype],
        mask=0 if mask is None else mask.dim(),
        tp=call["tp_world_size"] == 2,
    )
    if op == "dispatch":
        given.quant = call["quant_mode"] == 2
        given.smooth = given.quant and call["scales"] is not None
        given.cumulative_counts = call["expert_token_nums_type"] == 0
    else:
        given.comm_quant = call["comm_quant_mode"] == 2
        given.shared_x = call["shared_expert_x"] is not None
        given.capacity = rows.shape[0]
    return given


def waits(call: Mapping[str, Any], product: str) -> int:
    """``Waits`` of a call: how what it waited meets what ``performance_info`` holds."""
    if call["performance_info"] is None:
        return 0
    return 2 if product == "A2" else 1


def words(given: ctypes.Structure) -> list[int]:
    """A struct that a kernel takes by value, as arguments of a launch."""
    raw = bytes(given)
    raw += bytes(-len(raw) % 8)
    return list(struct.unpack(f"<{len(raw) // 8}Q", raw))
