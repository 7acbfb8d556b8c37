"""The weighted sum of combine, with the bits of `native/arithmetic.h` and of the oracle.

The addends of a few tokens are laid out in fp32, (tokens, addends, H): the rows of all slots, then ``shared_expert_x``.
They are multiplied by their weights, and added by numpy along the middle axis, one after the other from 0.0 on: no
fused multiply-add, no other order. A place that adds nothing holds zeros, which change no sum that began with 0.0.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from ascend_moe.cpu.windows.portable.combine import CombineSteps

_Rows = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
_BLOCK_ELEMENTS = 1 << 19
"""fp32 addends that are worked on at a time."""


class _Kept(threading.local):
    """Memory of each thread, warm from the call before."""

    values = torch.empty(0)


_kept = _Kept()


def write_totals(steps: CombineSteps, rows: Tensor, travelled: NDArray[np.bool_]) -> None:
    """rows: (BS, slots, H), of which those that ``travelled`` count. Fills the call's output."""
    fields, inputs, (output,) = steps.fields, steps.call.inputs, steps.call.outputs
    bs, slots, hidden, topk = fields.bs, steps.slots, fields.hidden, steps.topk
    shared = inputs.get("shared_expert_x")
    addends = slots + (shared is not None)
    weights = _weights(inputs.get("expert_scales"), (bs, addends), topk)
    special = _special_experts(steps)
    adds = None if travelled.all() else _places_that_add(steps, travelled, addends)
    if shared is not None:
        shared = shared.reshape(bs, hidden)
    step = min(max(_BLOCK_ELEMENTS // (addends * hidden), 1), bs)
    if _kept.values.numel() < step * (addends + 1) * hidden:
        _kept.values = torch.empty(step * (addends + 1) * hidden)
    all_totals, all_values = _kept.values.split_with_sizes(
        [step * hidden, _kept.values.numel() - step * hidden]
    )
    for begin in range(0, bs, step):
        block = slice(begin, min(begin + step, bs))
        tokens = block.stop - begin
        values = all_values[: tokens * addends * hidden].view(tokens, addends, hidden)
        total = all_totals[: tokens * hidden].view(tokens, hidden)
        values[:, :slots].copy_(rows[block])
        if shared is not None:
            values[:, slots].copy_(shared[block])
        for chosen, found in special:
            token, slot = np.nonzero(chosen[block])
            values.numpy()[token, slot] = found(begin + token, slot)
        if weights is not None:
            values.mul_(weights[block])
        if adds is not None:
            values.numpy()[~adds[block]] = 0
        np.add.reduce(values.numpy(), axis=1, initial=0.0, out=total.numpy())
        output[block].copy_(total)


def _weights(given: Tensor | None, shape: tuple[int, int], topk: int) -> Tensor | None:
    """(BS, addends, 1); what is no expert of the token's choice counts as it is. None: all do."""
    if given is None:
        return None
    if shape != given.shape:
        padded = torch.ones(shape)
        padded[:, :topk] = given
        given = padded
    return given[:, :, None]


def _active(steps: CombineSteps) -> NDArray[np.bool_]:
    return np.ones(steps.ids.shape, bool) if steps.active is None else steps.active


def _places_that_add(
    steps: CombineSteps, travelled: NDArray[np.bool_], addends: int
) -> NDArray[np.bool_]:
    """(BS, addends)."""
    fields, ids, active = steps.fields, steps.ids, _active(steps)
    adds = np.empty((fields.bs, addends), bool)
    adds[:, : steps.slots] = travelled
    adds[:, : steps.topk] |= active & (ids >= fields.moe_experts + fields.zero_experts)
    adds[:, steps.slots :] = active.any(axis=1, keepdims=True)
    return adds


def _special_experts(steps: CombineSteps) -> list[tuple[NDArray[np.bool_], _Rows]]:
    """What needs no journey: of which (token, slot), and a function that gives fp32 rows of some of them."""
    fields = steps.fields
    copies = fields.moe_experts + fields.zero_experts
    constants = copies + fields.copy_experts
    if fields.all_experts == copies:
        return []
    ids, active = steps.ids, _active(steps)

    def copied(token: NDArray[np.int64], _: NDArray[np.int64]) -> NDArray[np.float32]:
        rows: Tensor = steps.call.inputs["ori_x"][torch.from_numpy(token)].float()
        return rows.numpy()

    found: list[tuple[NDArray[np.bool_], _Rows]] = []
    if fields.copy_experts:
        found.append((active & (ids >= copies) & (ids < constants), copied))
    chosen = active & (ids >= constants)
    if fields.all_experts > constants and chosen.any():
        blends = _at(fields.blends, np.float32, (int(chosen.sum()), fields.hidden))
        blend_of = _at(fields.blend_of, np.int32, ids.shape)
        found.append((chosen, lambda token, slot: blends[blend_of[token, slot]]))
    return found


def _at(address: int, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
    """Memory of this process that the call holds."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = (ctypes.c_uint8 * size).from_address(address)
    return np.frombuffer(memoryview(raw), np.dtype(dtype)).reshape(shape)
