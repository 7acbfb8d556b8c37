"""The native steps over torch.distributed: what a rank would publish in shared memory lies in memory of its own.

Between publishing and receiving, each rank sends each other rank what that one would read. Dispatch: the tokens that it
wants, once each, and what all tokens chose, from which the receiver knows everything else. Combine: its rows, and where
they belong. A group takes these steps if all its ranks have the library, and a kind of call that was legal before is
remembered as in `windows.repeated`; the statements come first, as always.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import Any, Final, NoReturn

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from ascend_moe.contract.agreement import FIELDS
from ascend_moe.contract.errors import PeerError
from ascend_moe.cpu.distributed.exchange import Exchange
from ascend_moe.cpu.distributed.peers import GroupState
from ascend_moe.cpu.operators.statements import found_in
from ascend_moe.cpu.windows.areas import Area
from ascend_moe.cpu.windows.engine import Native
from ascend_moe.cpu.windows.fields import EQUAL, IS_RANK, Code, GroupFields
from ascend_moe.cpu.windows.layout import SENT_WORDS
from ascend_moe.cpu.windows.repeated import warm
from ascend_moe.cpu.windows.repeated.call import FastCall
from ascend_moe.cpu.windows.repeated.combine import Combine
from ascend_moe.cpu.windows.repeated.dispatch import Dispatch
from ascend_moe.cpu.windows.repeated.prepared import Checked
from ascend_moe.cpu.windows.repeated.tensors import Tensors
from ascend_moe.cpu.windows.rows_in_place import RowsInPlace
from ascend_moe.outputs import mapping

_VALID, _PUBLISH, _RECEIVE = range(3)
_END: Final = np.array([1, 0, 0, 0], np.uint8)
"""Of a block: says that all of it has arrived."""
_BS, _MASKS = FIELDS.index("bs"), FIELDS.index("masks_a_token")


class Far:
    """A group without shared memory, as the native steps see it."""

    def __init__(self, group: dist.ProcessGroup, state: GroupState, native: Native) -> None:
        self.rank, self.ranks, self.native = group.rank(), group.size(), native
        self.group, self.state = weakref.ref(group), state
        self.fields = GroupFields(0, self.ranks, self.rank)
        self.address = ctypes.addressof(self.fields)
        self.areas = {"dispatch": Area(), "combine": Area()}
        self.cache_bytes = 1 << 62  # rows are read again at once
        self.in_place = RowsInPlace([])


class _Buffer:
    """Bytes that the next call uses again: a fresh page costs several times what is written to it."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def of(self, size: int) -> NDArray[np.uint8]:
        if size > len(self._bytes):
            self._bytes = np.frombuffer(mapping(size + size // 4, huge_pages=True), np.uint8)
        return self._bytes[:size]


class _Steps(FastCall):
    """What both operators do here."""

    def __init__(self, far: Far, checked: Checked) -> None:
        windows: Any = far
        super().__init__(windows, checked)
        self.far = far
        self._memory = np.frombuffer(mapping(self.needed, huge_pages=True), np.uint8)
        self.fields.base = self._memory.ctypes.data
        self._incoming, self._outgoing = _Buffer(), _Buffer()
        comparison = np.array(self.fields.comparison[: len(FIELDS)])
        self._equal, self._is_rank = comparison == EQUAL, int((comparison == IS_RANK).argmax())

    def first(self, tensors: Tensors) -> Any:
        self._tensors.take(tensors)
        return self._step_by_step(tensors)

    def again(self, tensors: Tensors) -> Any:
        return self._step_by_step(tensors) if self._tensors.met_by(tensors) else None

    def _step_by_step(self, tensors: Tensors) -> Any:
        group, words, info = self.far.group(), self._words, tensors[self._performance_info]
        assert group is not None
        exchange = Exchange(group, what=self.what, measured=info is not None)
        outputs, kept = warm.take(self._sets)
        before = kept.rows
        if self._rows_before >= 0:
            words[self._rows_before] = before
            kept.rows = self.specs[0].shape[0]  # should the call fail
        words[self._first_output : self._first_output + len(outputs)] = kept.addresses
        if self._blended:
            self._before(tensors)
        if not self._part(_VALID):
            kept.rows = before
            return None
        if self.op == "dispatch":
            self._part(_PUBLISH)
        outgoing, sizes_out, counts = self._blocks()
        numbers = self.fields.numbers[: len(FIELDS)]
        said = exchange.meet(numbers, counts, way=self.fields.way)
        if not self._agrees(said):
            found = found_in(exchange.read(said), "ep_rank_id")
            if found:
                self._raise(tensors, found)
        sizes = self._sizes_of(said)
        incoming = self._incoming.of(sum(sizes))
        exchange.bytes(outgoing, sizes_out, incoming, sizes)
        end = 0
        for source, size in enumerate(sizes):
            if source != self.far.rank:
                self._take_in(source, said[source], incoming[end : end + size])
            end += size
        code = self._part(_RECEIVE)
        if code == Code.CORRUPT:
            self._reject(self.fields.detail)
        bad = self._bad_rows()
        if bad:
            self._raise(tensors, bad)
        if self._rows_before >= 0:
            kept.rows = self._rows_written()
        if info is not None:
            info += (torch.tensor(exchange.waited, dtype=torch.float64) * 1e6).round().long()
        return tuple(outputs) if self.op == "dispatch" else outputs[0]

    def _agrees(self, said: NDArray[np.int64]) -> bool:
        """Whether nothing stands against the call, at a glance."""
        numbers = said[:, : len(FIELDS)]
        own = numbers[self.far.rank]
        even = (numbers[:, _BS] == own[_BS]).all()
        return bool(
            (numbers[:, self._equal] == own[self._equal]).all()
            and (numbers[:, self._is_rank] == np.arange(self.far.ranks)).all()
            and (said[:, Exchange.WAY] == self.fields.way).all()
            and not said[:, Exchange.REASON].any()
            and (even or (self.fields.has_global_bs and not numbers[:, _MASKS].any()))
        )

    def _part(self, number: int) -> int:
        return self.far.native.part(self._argument, self.op == "combine", number)

    def _reject(self, rank: int) -> NoReturn:
        self.far.state.broken = f"rank {rank} published rows that cannot be"
        raise PeerError(f"{self.what}: {self.far.state.broken}", [rank])

    def _blocks(self) -> tuple[NDArray[np.uint8], list[int], list[int]]:
        """What leaves, grouped by destination, how much of it goes to each, and what the statements say of that."""
        raise NotImplementedError

    def _sizes_of(self, said: NDArray[np.int64]) -> list[int]:
        """Bytes that come from each rank."""
        raise NotImplementedError

    def _take_in(self, source: int, said: NDArray[np.int64], block: NDArray[np.uint8]) -> None:
        raise NotImplementedError

    def _at(self, offset: int, count: int, dtype: Any) -> NDArray[Any]:
        """A part of the memory that the steps read."""
        return np.frombuffer(self._memory, dtype, count, offset)


class FarDispatch(_Steps, Dispatch):
    """Dispatch: a block is what the tokens chose, their weights, the scales of rows, and rows."""

    def _set_layout(self, rows_per_token: int) -> None:
        # Smooth factors make a row per pair; whether a rank has them is its own affair.
        super()._set_layout(self._sizes.slots if self.fields.quantised else 1)

    def __init__(self, far: Far, checked: Checked) -> None:
        super().__init__(far, checked)
        fields, ranks = self.fields, far.ranks
        self._slots = self._sizes.slots
        places, rows = fields.max_bs * self._slots, fields.max_bs * fields.layout_rows_per_token
        self._lanes = self._at(fields.lanes_at, ranks * places, np.int32).reshape(ranks, places)
        self._given = self._at(fields.given_at, ranks * 2, np.int32).reshape(ranks, 2)
        weights = self._at(fields.weights_at, ranks * fields.max_bs * fields.topk, np.float32)
        self._weights = weights.reshape(ranks, -1)
        self._scales = self._at(fields.scales_at, ranks * rows, np.float32).reshape(ranks, rows)
        row = np.dtype((np.void, fields.row_bytes))
        self._rows = self._at(fields.rows_at, ranks * rows, row).reshape(ranks, rows)
        lanes = np.arange(fields.moe_experts + fields.shared_experts + 1)
        at = fields.shared_ranks + lanes // max(fields.local_experts, 1)
        shared = (lanes - fields.moe_experts) * fields.replicas + far.rank % fields.replicas
        self._rank_of_lane = np.where(lanes < fields.moe_experts, at, shared)
        self._rank_of_lane[-1] = ranks  # nobody: lane -1

    def _wanted(self, lanes: NDArray[np.int32], smooth: bool) -> NDArray[np.bool_]:
        """(ranks, rows) which rows of the sender of these lanes each rank wants."""
        rank = self._rank_of_lane[lanes]
        width = 1 if smooth else self._slots
        found = np.zeros((self.far.ranks + 1, len(lanes) // width), np.bool_)
        found[rank, np.arange(len(lanes)) // width] = True
        return found[:-1]

    def _blocks(self) -> tuple[NDArray[np.uint8], list[int], list[int]]:
        fields, own = self.fields, self.far.rank
        lanes = self._lanes[own, : fields.bs * self._slots]
        weighted, smooth = bool(fields.expert_scales), bool(fields.smooth)
        wanted = self._wanted(lanes, smooth)
        wanted[own] = False
        parts: list[NDArray[Any]] = [lanes]
        if weighted:
            parts.append(self._weights[own, : fields.bs * fields.topk])
        head = np.concatenate([part.view(np.uint8) for part in parts])
        rows_of = [one.nonzero()[0] for one in wanted]
        words = [len(rows) << 2 | smooth << 1 | weighted for rows in rows_of]
        sizes = [self._size(fields.bs, word) for word in words]
        blocks, end = self._outgoing.of(sum(sizes)), 0
        for rows, size in zip(rows_of, sizes, strict=True):
            if not size:
                continue
            block, end = blocks[end : end + size], end + size
            block[: len(head)] = head
            at = len(head)
            if fields.carries_scales:
                block[at : at + 4 * len(rows)] = self._scales[own, rows].view(np.uint8)
                at += 4 * len(rows)
            fetched = block[at : -len(_END)].view(self._rows.dtype)
            self._rows[own].take(rows, out=fetched, mode="clip")
            block[-len(_END) :] = _END
        return blocks, sizes, words

    def _size(self, bs: int, word: int) -> int:
        """Bytes of the block that a statement announces."""
        fields, rows, weighted = self.fields, word >> 2, word & 1
        head = 4 * bs * (self._slots + weighted * fields.topk)
        per_row = fields.row_bytes + 4 * bool(fields.carries_scales)
        return int(head + rows * per_row + len(_END)) if rows else 0

    def _sizes_of(self, said: NDArray[np.int64]) -> list[int]:
        return [self._size(bs, word) for bs, word in said[:, [_BS, Exchange.ROWS]].tolist()]

    def _take_in(self, source: int, said: NDArray[np.int64], block: NDArray[np.uint8]) -> None:
        fields = self.fields
        bs, word = said[[_BS, Exchange.ROWS]].tolist()
        rows, smooth, weighted = word >> 2, bool(word & 2), word & 1
        lanes, used = self._lanes[source], bs * self._slots if rows else 0
        if used > len(lanes) or (smooth and not fields.quantised):
            self._reject(source)
        lanes[used:] = -1
        self._given[source] = weighted, smooth
        if not rows:
            return
        lanes[:used] = block[: 4 * used].view(np.int32)
        end = 4 * used
        if weighted:
            count = bs * fields.topk
            self._weights[source, :count] = block[end : end + 4 * count].view(np.float32)
            end += 4 * count
        if not (lanes.min() >= -1 and lanes.max() < len(self._rank_of_lane) - 1):
            self._reject(source)
        (wanted,) = self._mine(source, lanes[:used], smooth).nonzero()
        if len(wanted) != rows:
            self._reject(source)
        if fields.carries_scales:
            self._scales[source, wanted] = block[end : end + 4 * rows].view(np.float32)
            end += 4 * rows
        self._rows[source, wanted] = block[end : -len(_END)].view(self._rows.dtype)

    def _mine(self, source: int, lanes: NDArray[np.int32], smooth: bool) -> NDArray[np.bool_]:
        """Which rows of ``source`` come here."""
        fields, own = self.fields, self.far.rank
        if own < fields.shared_ranks:
            here = lanes == fields.moe_experts + own // fields.replicas
        else:
            first = (own - fields.shared_ranks) * fields.local_experts
            here = (lanes >= first) & (lanes < first + fields.local_experts)
        found: NDArray[np.bool_] = here.reshape(-1, 1 if smooth else self._slots).any(axis=1)
        return found


class FarCombine(_Steps, Combine):
    """Combine: a block is the places of rows (source, token, slot), and the rows."""

    def _set_layout(self, rows_per_token: int) -> None:
        super()._set_layout(rows_per_token)
        fields = self.fields
        fields.sent_at = 0  # rows stay where they arrive
        fields.lists_at = -(-self.windows.ranks * SENT_WORDS * 8 // 64) * 64
        self.needed = fields.lists_at + self.windows.ranks * 12 * fields.max_rows

    def __init__(self, far: Far, checked: Checked) -> None:
        super().__init__(far, checked)
        fields, ranks = self.fields, far.ranks
        self._sent = self._at(fields.sent_at, ranks * SENT_WORDS, np.int64).reshape(ranks, -1)
        lists = self._at(fields.lists_at, ranks * 3 * fields.max_rows, np.int32)
        self._lists = lists.reshape(ranks, -1, 3)
        self._row = np.dtype((np.void, fields.row_bytes))

    def _blocks(self) -> tuple[NDArray[np.uint8], list[int], list[int]]:
        fields, own, ranks = self.fields, self.far.rank, range(self.far.ranks)
        ends = (ctypes.c_int32 * fields.prefix_length).from_address(fields.send_counts)
        rows = ends[-1]
        self._sent[own] = rows, 0, 0, 0, 0
        if not rows:
            return self._outgoing.of(0), [0 for _ in ranks], [0 for _ in ranks]
        places = np.frombuffer((ctypes.c_int32 * (3 * rows)).from_address(fields.assist_info), "i4")
        places = places.reshape(rows, 3)
        memory = (ctypes.c_char * (rows * fields.row_bytes)).from_address(fields.expand_x)
        elements = np.frombuffer(memory, self._row)
        self._lists[own, :rows] = places
        owner = places[:, 0]
        rows_of = [(owner == rank).nonzero()[0] if rank != own else owner[:0] for rank in ranks]
        counts = list(map(len, rows_of))
        sizes = list(map(self._size, counts))
        blocks, end = self._outgoing.of(sum(sizes)), 0
        for chosen, size in zip(rows_of, sizes, strict=True):
            if not size:
                continue
            block, end = blocks[end : end + size], end + size
            at = 12 * len(chosen)
            block[:at] = places[chosen].reshape(-1).view(np.uint8)
            fetched = block[at : -len(_END)].view(self._row)
            elements.take(chosen, out=fetched, mode="clip")
            block[-len(_END) :] = _END
        return blocks, sizes, counts

    def _size(self, rows: int) -> int:
        """Bytes of a block."""
        return int(rows * (12 + self.fields.row_bytes) + len(_END)) if rows else 0

    def _sizes_of(self, said: NDArray[np.int64]) -> list[int]:
        return [self._size(rows) for rows in said[:, Exchange.ROWS].tolist()]

    def _take_in(self, source: int, said: NDArray[np.int64], block: NDArray[np.uint8]) -> None:
        rows = int(said[Exchange.ROWS])
        if rows > self.fields.max_rows:
            self._reject(source)
        self._lists[source, :rows] = block[: 12 * rows].view(np.int32).reshape(rows, 3)
        self._sent[source] = rows, bool(rows), 0, 0, rows * self.fields.row_bytes
        self._known[2 * source] = bool(rows)
        self._known[2 * source + 1] = block.ctypes.data + 12 * rows
