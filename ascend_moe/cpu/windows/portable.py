"""The steps of ``native/`` in torch and numpy, where there is no compiler: same memory, same protocol, same bits."""

from __future__ import annotations

import ctypes
import platform
import time
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ascend_moe.cpu.combine import Home, weighted_sum
from ascend_moe.cpu.windows.control import Control
from ascend_moe.cpu.windows.fields import ANY, IS_RANK, Code, Phase
from ascend_moe.cpu.windows.layout import SENT_WORDS
from ascend_moe.reference.quant import quantise_rows
from ascend_moe.reference.routing import ordinals_at_sender

_SYS_FUTEX: Final = {"x86_64": 202, "aarch64": 98, "riscv64": 98}.get(platform.machine())
_FUTEX_WAIT, _FUTEX_WAKE = 0, 1
_BLOCK_ELEMENTS: Final = 1 << 16
"""fp32 sums that are worked on at a time; they stay in a core's cache."""

_libc: Any = ctypes.CDLL(None)


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


# --- the barrier ------------------------------------------------------------------------------------------------------


def arrive(control: Control, rank: int, barrier: int) -> None:
    """See ``native/protocol.h``. The system call orders what was written before it for all other ranks."""
    control.arrived_ns[rank, barrier & 1] = time.monotonic_ns()
    control.flags[rank] = _int32(barrier)
    _wake(control)
    _complete_if_all_arrived(control, barrier)


def wait(control: Control, barrier: int, microseconds: int) -> bool:
    """True when the barrier is complete, False when the time is over."""
    end = time.monotonic_ns() + microseconds * 1000
    while True:
        seen = int(control.generation[0])
        if _reached(seen, barrier):
            return True
        left = end - time.monotonic_ns()
        if left <= 0:
            return _complete_if_all_arrived(control, barrier)
        if _SYS_FUTEX is None:
            time.sleep(50e-6)
            continue
        limit = _Timespec(*divmod(left, 10**9))
        _libc.syscall(
            _SYS_FUTEX,
            ctypes.c_void_p(control.generation_address),
            _FUTEX_WAIT,
            ctypes.c_int32(seen),
            ctypes.byref(limit),
            None,
            0,
        )


def _complete_if_all_arrived(control: Control, barrier: int) -> bool:
    if ((control.flags - np.int32(_int32(barrier))) < 0).any():
        return False
    control.generation[0] = _int32(barrier)
    _wake(control)
    return True


def _wake(control: Control) -> None:
    if _SYS_FUTEX is not None:
        address = ctypes.c_void_p(control.generation_address)
        _libc.syscall(_SYS_FUTEX, address, _FUTEX_WAKE, ctypes.c_int32(2**31 - 1), None, None, 0)


def _reached(number: int, barrier: int) -> bool:
    return _int32(number - barrier) >= 0


def _int32(number: int) -> int:
    return (number + (1 << 31)) % (1 << 32) - (1 << 31)


# --- the steps of a call ----------------------------------------------------------------------------------------------


class Steps:
    """What dispatch and combine have in common."""

    def __init__(self, call: Any) -> None:
        """call: the `windows.calls.FastCall` whose fields and tensors are used."""
        self.call, self.fields = call, call.fields
        self.control: Control = call.windows.control
        self.own, self.ranks = call.windows.rank, call.windows.ranks
        self.topk, self.slots = self.fields.topk, self.fields.topk + self.fields.shared_experts
        compared = list(self.fields.comparison)
        self._equal = np.array([index for index, kind in enumerate(compared) if kind != ANY])
        wanted = np.tile(np.array(list(self.fields.numbers)), (self.ranks, 1))
        wanted[:, compared.index(IS_RANK)] = np.arange(self.ranks)
        self._wanted = wanted[:, self._equal]
        self._views: dict[tuple[int, int], Any] = {}

    def forget(self) -> None:
        """Lets go of the tensors of the call that was made."""
        for name in ("ids", "active", "rows", "triples"):
            self.__dict__.pop(name, None)

    def step(self, _: int) -> int:
        """Runs until the call is done or somebody has to look."""
        fields = self.fields
        if fields.phase == Phase.START:
            if not self.valid():
                return Code.INVALID
            self._post()
            if fields.early:
                self.publish()
            arrive(self.control, self.own, fields.barrier)
            fields.phase = Phase.FIRST_BARRIER
        if fields.phase == Phase.FIRST_BARRIER:
            if not wait(self.control, fields.barrier, fields.slice_us):
                return Code.WAITING
            if not self._agrees():
                return Code.LOOK
            fields.phase = Phase.JUDGED
        if fields.phase == Phase.JUDGED:
            return self.receive() if fields.early else Code.NOT_PUBLISHED
        if fields.phase == Phase.PUBLISH:
            self.publish()
            fields.barrier += 1
            arrive(self.control, self.own, fields.barrier)
            fields.phase = Phase.SECOND_BARRIER
        if not wait(self.control, fields.barrier, fields.slice_us):
            return Code.WAITING
        return self.receive()

    def valid(self) -> bool:
        """Whether this rank's own tensors are legal."""
        raise NotImplementedError

    def publish(self) -> None:
        """Writes what the others need."""
        raise NotImplementedError

    def receive(self) -> int:
        """Fetches what is this rank's own."""
        raise NotImplementedError

    def choices_are_legal(self) -> bool:
        """Rules X-34, X-36 and X-37; says which pairs take part, None: all."""
        fields, mask_tensor = self.fields, self.call.inputs.get("x_active_mask")
        self.ids = ids = self.call.inputs["expert_ids"].numpy()
        self.active: NDArray[np.bool_] | None = None
        masks = False
        if mask_tensor is not None:
            mask = mask_tensor.numpy()
            here = mask if mask.ndim == 1 else mask.any(axis=1)
            count = int(here.sum())
            if fields.ordered_mask and not here[:count].all():
                return False
            masks = not mask.all()
            active = mask if mask.ndim == 2 else (np.arange(len(ids)) < count)[:, None]
            self.active = np.broadcast_to(active, ids.shape)
        fields.numbers[fields.mask_number] = masks
        picked = ids if self.active is None else ids[self.active]
        if picked.size and (picked.min() < 0 or picked.max() >= fields.all_experts):
            return False
        if self.topk > 1:
            if self.active is not None:  # an inactive pair equals nothing
                ids = np.where(self.active, ids, -1 - np.arange(self.topk))
            ordered = np.sort(ids, axis=1)
            if (ordered[:, 1:] == ordered[:, :-1]).any():
                return False
        return True

    def _post(self) -> None:
        fields, own = self.fields, self.control.statements[self.own, self.fields.barrier & 1]
        own["refused"], own["way"], own["early"] = 0, fields.way, fields.early
        own["rows_per_token"], own["numbers"] = fields.rows_per_token, fields.numbers

    def _agrees(self) -> bool:
        fields = self.fields
        said = self.control.statements[:, fields.barrier & 1]
        if (
            said["refused"].any()
            or (said["way"] != fields.way).any()
            or (said["early"] != fields.early).any()
            or (said["rows_per_token"] != fields.rows_per_token).any()
            or self.control.left.any()
        ):
            return False
        numbers = said["numbers"]
        if (numbers[:, self._equal] != self._wanted).any():
            return False
        if (numbers[:, fields.bs_number] == fields.bs).all():
            return True
        return bool(fields.has_global_bs) and not numbers[:, fields.mask_number].any()

    def views(self) -> Any:
        """The arrays of the area's half that the call uses."""
        key = (self.fields.base, self.call.needed)
        found = self._views.get(key)
        if found is None:
            area = self.call.area
            start = self.fields.base - area.memory.address
            if len(self._views) > 2:
                self._views.clear()
            found = self._views[key] = self._cut(area.memory.bytes[start : start + area.size])
        return found

    def _cut(self, half: Tensor) -> Any:
        raise NotImplementedError


class _DispatchViews(NamedTuple):
    rows: Tensor
    """(all ranks' rows, H)."""
    scales: NDArray[np.float32]
    """(all ranks' rows,)."""
    weights: NDArray[np.float32]
    """(ranks, max BS, K)."""
    table: NDArray[np.int32]
    """(ranks, 2 + lanes + 1)."""
    pairs: NDArray[np.int32]
    """(ranks, max BS * slots, 2)."""


class DispatchSteps(Steps):
    """See ``native/dispatch.h``."""

    def _cut(self, half: Tensor) -> _DispatchViews:
        fields, ranks = self.fields, self.ranks
        self.rows_per_rank = fields.max_bs * fields.layout_rows_per_token
        self.lanes = fields.moe_experts + fields.shared_experts
        dtype = self.call.outputs[0].dtype
        rows = ranks * self.rows_per_rank
        return _DispatchViews(
            rows=_array(half, fields.rows_at, dtype, (rows, fields.hidden)),
            scales=_array(half, fields.scales_at, torch.float32, (rows,)).numpy(),
            weights=_array(
                half, fields.weights_at, torch.float32, (ranks, fields.max_bs, self.topk)
            ).numpy(),
            table=_array(half, fields.table_at, torch.int32, (ranks, self.lanes + 3)).numpy(),
            pairs=_array(
                half, fields.pairs_at, torch.int32, (ranks, fields.max_bs * self.slots, 2)
            ).numpy(),
        )

    def valid(self) -> bool:
        return self.choices_are_legal()

    def publish(self) -> None:
        fields, views = self.fields, self.views()
        x = self.call.inputs["x"]
        scales, expert_scales = (self.call.inputs.get(n) for n in ("scales", "expert_scales"))
        lane = self._lanes()
        order = np.argsort(lane, kind="stable")
        counts = np.bincount(lane, minlength=self.lanes + 1)[: self.lanes]
        table = views.table[self.own]
        table[0], table[1] = expert_scales is not None, fields.smooth
        table[2] = 0
        np.cumsum(counts, out=table[3:])
        pairs = order[: table[-1]]
        token, slot = np.divmod(pairs, self.slots)
        views.pairs[self.own, : len(pairs), 0] = token
        views.pairs[self.own, : len(pairs), 1] = slot
        first = self.own * self.rows_per_rank
        row_scales: Tensor | None
        if fields.smooth:
            per_lane = np.repeat(np.arange(self.lanes), counts)
            row = np.where(
                per_lane < fields.moe_experts,
                per_lane + fields.shared_experts,
                per_lane - fields.moe_experts,
            )
            rows, row_scales = quantise_rows(
                x.index_select(0, torch.from_numpy(token)), scales[torch.from_numpy(row)]
            )
        elif fields.quantised:
            rows, row_scales = quantise_rows(x)
        else:
            rows, row_scales = x, scales if fields.carries_scales else None
        views.rows[first : first + len(rows)].copy_(rows)
        if row_scales is not None:
            views.scales[first : first + len(rows)] = row_scales.numpy()
        if expert_scales is not None:
            views.weights[self.own, : fields.bs] = expert_scales.numpy()

    def _lanes(self) -> NDArray[np.int64]:
        """Of each (token, slot); those that are not sent come last."""
        fields = self.fields
        nowhere = self.lanes
        lane = np.full((fields.bs, self.slots), nowhere)
        lane[:, : self.topk] = np.where(self.ids < fields.moe_experts, self.ids, nowhere)
        for shared in range(fields.shared_experts):
            lane[:, self.topk + shared] = fields.moe_experts + shared
        if self.active is not None:
            lane[:, : self.topk][~self.active] = nowhere
            lane[:, self.topk :][~self.active.any(axis=1)] = nowhere
        return lane.reshape(-1)

    def receive(self) -> int:
        fields, views, ranks = self.fields, self.views(), self.ranks
        begin = views.table[:, 2:]
        if self.own >= fields.shared_ranks:
            low = (self.own - fields.shared_ranks) * fields.local_experts
            span = slice(low, low + fields.local_experts + 1)
            starts = begin[:, span].T.astype(np.int64)
        else:
            low = fields.moe_experts + self.own // fields.replicas
            starts = begin[:, low : low + 2].T.astype(np.int64)
            others = np.arange(ranks) % fields.replicas != self.own % fields.replicas
            starts[1, others] = starts[0, others]
        counts = starts[1:] - starts[:-1]
        prefix = counts.reshape(-1).cumsum()
        received = int(prefix[-1])
        wrong = ((counts < 0) | (starts[1:] > fields.max_bs * self.slots)).any(axis=0)
        if wrong.any() or received > fields.max_rows:
            fields.detail = int(wrong.argmax())
            return Code.CORRUPT
        segment = np.repeat(np.arange(counts.size), counts.reshape(-1))
        behind = (starts[:-1].reshape(-1) - (prefix - counts.reshape(-1)))[segment]
        pair = np.arange(received) + behind
        source = segment % ranks
        token, slot = views.pairs[source, pair].T
        bad = (token < 0) | (token >= fields.max_bs) | (slot < 0) | (slot >= self.slots)
        if bad.any():
            fields.detail = int(source[bad.argmax()])
            return Code.CORRUPT
        index = np.where(views.table[source, 1] != 0, pair, token) + source * self.rows_per_rank
        self._lay_out(received, index, source, token, slot)
        expert_counts = counts.sum(axis=1)
        self.call.outputs[4].numpy()[: prefix.size] = prefix
        self.call.outputs[3].numpy()[:] = (
            expert_counts if fields.token_nums_type else expert_counts.cumsum()
        )
        if len(self.call.outputs[5]):
            self.call.outputs[5][0] = received
        fields.rows_received = received
        return Code.DONE

    def _lay_out(
        self,
        received: int,
        index: NDArray[Any],
        source: NDArray[Any],
        token: NDArray[Any],
        slot: NDArray[Any],
    ) -> None:
        fields, views = self.fields, self.views()
        expand_x, dynamic_scales, assist_info, _, _, _, expand_scales = self.call.outputs
        before = fields.rows_before
        torch.index_select(views.rows, 0, torch.from_numpy(index), out=expand_x[:received])
        expand_x[received:before] = 0
        if fields.carries_scales:
            dynamic_scales.numpy()[:received] = views.scales[index]
            dynamic_scales[received:before] = 0
        if len(expand_scales):
            weights = views.weights[source, token, np.minimum(slot, self.topk - 1)]
            given = (slot < self.topk) & (views.table[source, 0] != 0)
            expand_scales.numpy()[:received] = np.where(given, weights, np.float32(0))
            expand_scales[received:before] = 0
        if fields.handle_of_a2:
            ids = torch.from_numpy(self.ids)
            active = np.ones(ids.shape, bool) if self.active is None else self.active.copy()
            table = ordinals_at_sender(self.call.world, ids, torch.from_numpy(active))
            assist_info[: table.numel()] = table.reshape(-1)
        else:
            triples = assist_info.numpy()[: 3 * received].reshape(-1, 3)
            triples[:, 0], triples[:, 1], triples[:, 2] = source, token, slot
            assist_info[3 * received : 3 * before] = 0


class _CombineViews(NamedTuple):
    rows: Tensor
    """(ranks, max BS, slots, H)."""
    words: NDArray[Any]
    """The same rows, flat, in the widest integers that they are a multiple of."""
    sent: NDArray[np.int64]
    """(ranks, 5): see `layout.SENT_WORDS`."""
    lists: NDArray[np.int32]
    """(ranks, 3 * rows)."""


class CombineSteps(Steps):
    """See ``native/combine.h``."""

    def _cut(self, half: Tensor) -> _CombineViews:
        fields = self.fields
        places = self.ranks * fields.max_bs * self.slots
        rows = _array(half, fields.rows_at, self.call.outputs[0].dtype, (places, fields.hidden))
        sent = _array(half, fields.sent_at, torch.int64, (self.ranks, SENT_WORDS))
        lists = _array(half, fields.lists_at, torch.int32, (self.ranks, 3 * fields.max_rows))
        shaped = rows.view(self.ranks, fields.max_bs, self.slots, fields.hidden)
        return _CombineViews(shaped, _in_words(rows), sent.numpy(), lists.numpy())

    def valid(self) -> bool:
        fields = self.fields
        inputs = self.call.inputs
        rows = int(inputs["ep_send_counts"][fields.prefix_length - 1])
        if not 0 <= rows <= min(fields.row_limit, fields.max_rows):
            return False
        self.rows = inputs["expand_x"][:rows]
        self.triples = triples = (
            inputs["assist_info_for_combine"][: 3 * rows].numpy().reshape(rows, 3)
        )
        limits = np.array([self.ranks, fields.max_bs, self.slots], dtype=np.uint32)
        legal = (triples.view(np.uint32) < limits).all()
        return bool(legal) and self.choices_are_legal()

    def publish(self) -> None:
        fields, views, triples = self.fields, self.views(), self.triples
        views.sent[self.own] = len(triples), 0, 0, 0, 0
        views.lists[self.own, : triples.size] = triples.reshape(-1)
        source, token, slot = triples.T.astype(np.int64)
        place = (source * fields.max_bs + token) * self.slots + slot
        views.words[place] = _in_words(self.rows)

    def receive(self) -> int:
        fields, views = self.fields, self.views()
        counts = views.sent[:, 0]
        if ((counts < 0) | (counts > fields.max_rows)).any():
            fields.detail = int(((counts < 0) | (counts > fields.max_rows)).argmax())
            return Code.CORRUPT
        lists = [row[: 3 * count] for row, count in zip(views.lists, counts, strict=True)]
        for sender in np.flatnonzero(views.sent[:, 1]).tolist():
            code = self._bring(sender, lists[sender].reshape(-1, 3))
            if code:
                return code
        triples = np.concatenate(lists).reshape(-1, 3)
        mine = triples[(triples[:, 0] == self.own) & (triples[:, 1] < fields.bs)]
        claims = np.bincount(
            mine[:, 1].astype(np.int64) * self.slots + mine[:, 2],
            minlength=fields.bs * self.slots,
        )
        active = np.ones(self.ids.shape, bool) if self.active is None else self.active
        travelled = np.empty((fields.bs, self.slots), bool)
        travelled[:, : self.topk] = active & (self.ids < fields.moe_experts)
        travelled[:, self.topk :] = active.any(axis=1, keepdims=True)
        doubled = np.flatnonzero(claims > 1)
        missing = np.flatnonzero(travelled.reshape(-1) & (claims == 0))
        fields.doubled_count, fields.missing_count = len(doubled), len(missing)
        if len(doubled) or len(missing):
            fields.doubled = int(doubled[0]) if len(doubled) else 0
            fields.missing = int(missing[0]) if len(missing) else 0
        else:
            self._sum(views.rows[self.own, : fields.bs], travelled)
        if views.sent[:, 1].any():
            return Code.IN_PLACE
        return Code.BAD_ROWS if len(doubled) or len(missing) else Code.DONE

    def _bring(self, sender: int, triples: NDArray[np.int32]) -> int:
        """Copies rows from shared memory of their sender to their places here."""
        fields, views = self.fields, self.views()
        _, number, _, offset, size = views.sent[sender].tolist()
        known = self.call.windows.foreign.get((sender, number))
        fields.detail = sender
        if known is None:
            return Code.UNMAPPED
        end = offset + len(triples) * fields.row_bytes
        if offset < 0 or end > size:
            return Code.CORRUPT
        rows = known.bytes[offset:end].view(self.call.outputs[0].dtype).view(-1, fields.hidden)
        here = np.flatnonzero((triples[:, 0] == self.own) & (triples[:, 1] < fields.bs))
        token, slot = triples[here, 1:].T.astype(np.int64)
        place = (self.own * fields.max_bs + token) * self.slots + slot
        views.words[place] = _in_words(rows)[here]
        return Code.DONE

    def _sum(self, rows: Tensor, travelled: NDArray[np.bool_]) -> None:
        call, fields, (output,) = self.call.arguments, self.fields, self.call.outputs
        weights = self.call.inputs.get("expert_scales")
        only_rows = fields.all_experts == fields.moe_experts and call["shared_expert_x"] is None
        if not only_rows or not travelled.all() or weights is None:
            places = torch.arange(travelled.size).view(travelled.shape)
            home = Home(places, torch.from_numpy(travelled), [])
            flat = rows.reshape(-1, fields.hidden)
            output.copy_(weighted_sum(self.call.world, call, flat, home))
            return
        step = max(_BLOCK_ELEMENTS // fields.hidden, 1)
        for begin in range(0, fields.bs, step):
            block = rows[begin : begin + step]
            factors = weights[begin : begin + step]
            total = torch.zeros(block.shape[0], fields.hidden)
            for slot in range(self.slots):
                addend = block[:, slot].float()
                if slot < self.topk:
                    addend *= factors[:, slot, None]
                total += addend
            output[begin : begin + step] = total


STEPS: Final = {"dispatch": DispatchSteps, "combine": CombineSteps}


def _array(half: Tensor, offset: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    count = int(np.prod(shape)) * dtype.itemsize
    return half[offset : offset + count].view(dtype).view(shape)


def _in_words(rows: Tensor) -> NDArray[Any]:
    """Rows as integers: numpy moves rows of few wide elements several times quicker than of many narrow ones."""
    width = rows.shape[1] * rows.itemsize
    dtype = torch.int64 if width % 8 == 0 and rows.data_ptr() % 8 == 0 else torch.int16
    words: NDArray[Any] = rows.view(torch.int16).view(dtype).numpy()
    return words
