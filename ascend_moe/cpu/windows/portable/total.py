"""The weighted sum of combine, with the bits of `native/arithmetic.h` and of the oracle.

The addends of a few tokens are laid out in fp32, (tokens, addends, H): the rows of all slots, then ``shared_expert_x``.
They are multiplied by their weights and added along the middle axis, one after the other from 0.0 on: no fused
multiply-add, no other order. numpy's ``einsum`` does both at once, and does it so on the machines where it has no
fused multiply-add to use, which is tried once. A place that adds nothing holds zeros, which change no sum that began
with 0.0.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from ascend_moe.cpu.windows.portable.combine import CombineSteps

_Rows = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
_BLOCK_ELEMENTS = 1 << 18
"""fp32 addends that are worked on at a time."""


class _Block(NamedTuple):
    """Room for the addends of some tokens and for their sums, as torch and as numpy see it."""

    values: Tensor
    """(tokens, addends, H)."""
    total: Tensor
    """(tokens, H)."""
    values_array: NDArray[np.float32]
    total_array: NDArray[np.float32]


class _Kept(threading.local):
    """Memory of each thread, warm from the call before."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)
        self._blocks: dict[tuple[int, int, int], _Block] = {}

    def block(self, tokens: int, addends: int, hidden: int) -> _Block:
        """All blocks share the memory: one is used at a time."""
        found = self._blocks.get((tokens, addends, hidden))
        if found is None:
            sums = tokens * hidden
            size = sums * (1 + addends)
            if self._memory.numel() < size or len(self._blocks) > 8:
                self._memory = torch.empty(max(size, self._memory.numel()))
                self._blocks.clear()
            total, values = self._memory[:size].split_with_sizes([sums, size - sums])
            values, total = values.view(tokens, addends, hidden), total.view(tokens, hidden)
            found = _Block(values, total, values.numpy(), total.numpy())
            self._blocks[tokens, addends, hidden] = found
        return found


_kept = _Kept()


def blocks_of(bs: int, slots: int, hidden: int) -> int:
    """In how many blocks of tokens (`Tensor.chunk`) the rows are added up."""
    return -(-bs // max(_BLOCK_ELEMENTS // (slots * hidden), 1))


def write_totals(steps: CombineSteps, blocks: Sequence[Tensor]) -> None:
    """blocks: (tokens, slots, H) each, of which those that travel count. Fills the call's output."""
    inputs, output, slots = steps.inputs, steps.outputs[0], steps.slots
    bs, hidden = output.shape
    shared = inputs.get("shared_expert_x")
    addends = slots + (shared is not None)
    adds = _places_that_add(steps, addends)
    weights = _weights(inputs.get("expert_scales"), adds, (bs, addends), steps.topk)
    special = _special_experts(steps)
    if shared is not None:
        shared = shared.reshape(bs, hidden)
    # einsum adds a lone column in another order
    add_up = _add_up_at_once if hidden > 1 and _rounds_each_product() else _add_up_in_steps
    begin = 0
    for rows, to in zip(blocks, output.chunk(steps.blocks), strict=True):
        end = begin + len(rows)
        values, total, array, total_array = _kept.block(end - begin, addends, hidden)
        (values if shared is None else values[:, :slots]).copy_(rows)
        if shared is not None:
            values[:, slots].copy_(shared[begin:end])
        for chosen, found in special:
            token, slot = np.nonzero(chosen[begin:end])
            array[token, slot] = found(begin + token, slot)
        if adds is not None:
            array[~adds[begin:end]] = 0
        if weights is None:
            np.add.reduce(array, axis=1, initial=0.0, out=total_array)
        else:
            add_up(weights[begin:end], array, total_array)
        to.copy_(total)
        begin = end


def _add_up_in_steps(
    weights: NDArray[np.float32], values: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """weights: (tokens, addends); values: (tokens, addends, H), overwritten; out: (tokens, H)."""
    np.multiply(values, weights[:, :, None], out=values)
    np.add.reduce(values, axis=1, initial=0.0, out=out)


def _add_up_at_once(
    weights: NDArray[np.float32], values: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """The same, if `_rounds_each_product`."""
    np.einsum("ta,tah->th", weights, values, out=out)


@cache
def _rounds_each_product() -> bool:
    """Whether both ways give the same bits here; a fused multiply-add, or another order, would differ soon."""
    random = np.random.default_rng(0)
    for addends, hidden in ((8, 1031), (3, 4096), (1, 1024)):
        weights = random.random((4, addends), np.float32)
        values = random.standard_normal((4, addends, hidden), np.float32)
        at_once, in_steps = np.empty((2, 4, hidden), np.float32)
        _add_up_at_once(weights, values, at_once)
        _add_up_in_steps(weights, values, in_steps)
        if at_once.tobytes() != in_steps.tobytes():
            return False
    return True


def _weights(
    given: Tensor | None, adds: NDArray[np.bool_] | None, shape: tuple[int, int], topk: int
) -> NDArray[np.float32] | None:
    """(BS, addends); what is no expert of the token's choice counts as it is. None: all do."""
    if given is None:
        return None
    weights: NDArray[np.float32] = given.numpy()
    if shape[1] > topk:
        weights = np.ones(shape, np.float32)
        weights[:, :topk] = given.numpy()
    # A place that adds nothing may have any weight, also one that makes NaN of 0.
    return weights if adds is None else np.where(adds, weights, np.float32(0))


def _active(steps: CombineSteps) -> NDArray[np.bool_]:
    choice = steps.choice
    return np.ones(choice.ids.shape, bool) if choice.active is None else choice.active


def _places_that_add(steps: CombineSteps, addends: int) -> NDArray[np.bool_] | None:
    """(BS, addends); None: all."""
    fields, choice = steps.fields, steps.choice
    if choice.travelling is None:
        return None
    active = _active(steps)
    adds = np.empty((fields.bs, addends), bool)
    adds[:, : steps.slots] = choice.travelling
    adds[:, : steps.topk] |= active & (choice.ids >= fields.moe_experts + fields.zero_experts)
    adds[:, steps.slots :] = active.any(axis=1, keepdims=True)
    return adds


def _special_experts(steps: CombineSteps) -> list[tuple[NDArray[np.bool_], _Rows]]:
    """What needs no journey: of which (token, slot), and a function that gives fp32 rows of some of them."""
    fields = steps.fields
    copies = fields.moe_experts + fields.zero_experts
    constants = copies + fields.copy_experts
    if fields.all_experts == copies:
        return []
    ids, active = steps.choice.ids, _active(steps)

    def copied(token: NDArray[np.int64], _: NDArray[np.int64]) -> NDArray[np.float32]:
        rows: Tensor = steps.inputs["ori_x"][torch.from_numpy(token)].float()
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
