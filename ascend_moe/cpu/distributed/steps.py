"""The native steps over torch.distributed: what a rank would publish in shared memory lies in memory of its own.

Between publishing and receiving, each rank sends each other rank what that one would read. Dispatch: the tokens that it
wants, once each, and what all tokens chose, from which the receiver knows everything else. Combine: its rows, and where
they belong. A group takes these steps if all its ranks have the library, and a kind of call that was legal before is
remembered as in `windows.repeated`; the statements come first, as always.
"""

from __future__ import annotations

import ctypes
import weakref
from itertools import accumulate, pairwise
from typing import Any, ClassVar, Final, NoReturn

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
from ascend_moe.cpu.windows.repeated import warm
from ascend_moe.cpu.windows.repeated.call import FastCall
from ascend_moe.cpu.windows.repeated.prepared import Checked
from ascend_moe.cpu.windows.repeated.tensors import Tensors
from ascend_moe.cpu.windows.rows_in_place import RowsInPlace
from ascend_moe.outputs import mapping

_VALID, _PUBLISH, _RECEIVE = range(3)
END: Final = np.array([1, 0, 0, 0], np.uint8)
"""Of a block: says that all of it has arrived."""
BS, _MASKS = FIELDS.index("bs"), FIELDS.index("masks_a_token")


class _Buffer:
    """Bytes that the next call uses again: a fresh page costs several times what is written to it."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def of(self, size: int) -> NDArray[np.uint8]:
        if size > len(self._bytes):
            self._bytes = np.frombuffer(mapping(size + size // 4, huge_pages=True), np.uint8)
        return self._bytes[:size]


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
        self.incoming, self.outgoing = _Buffer(), _Buffer()


class Steps(FastCall):
    """What both operators do here."""

    kept_at_most: ClassVar[int] = 32  # each has memory of its own

    def __init__(self, far: Far, checked: Checked) -> None:
        windows: Any = far
        super().__init__(windows, checked)
        self.far = far
        self._memory = np.frombuffer(mapping(self.needed, huge_pages=True), np.uint8)
        self.fields.base = self._memory.ctypes.data
        self._incoming, self._outgoing = far.incoming, far.outgoing
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
        ends = list(accumulate(sizes, initial=0))
        self._take_in(said, [incoming[a:b] for a, b in pairwise(ends)])
        code = self._part(_RECEIVE)
        if code == Code.CORRUPT:
            self.reject(self.fields.detail)
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
        even = (numbers[:, BS] == own[BS]).all()
        return bool(
            (numbers[:, self._equal] == own[self._equal]).all()
            and (numbers[:, self._is_rank] == np.arange(self.far.ranks)).all()
            and (said[:, Exchange.WAY] == self.fields.way).all()
            and not said[:, Exchange.REASON].any()
            and (even or (self.fields.has_global_bs and not numbers[:, _MASKS].any()))
        )

    def _part(self, number: int) -> int:
        return self.far.native.part(self._argument, self.op == "combine", number)

    def reject(self, rank: int) -> NoReturn:
        self.far.state.broken = f"rank {rank} published rows that cannot be"
        raise PeerError(f"{self.what}: {self.far.state.broken}", [rank])

    def _blocks(self) -> tuple[NDArray[np.uint8], list[int], list[int]]:
        """What leaves, grouped by destination, how much of it goes to each, and what the statements say of that."""
        raise NotImplementedError

    def _sizes_of(self, said: NDArray[np.int64]) -> list[int]:
        """Bytes that come from each rank."""
        raise NotImplementedError

    def _take_in(self, said: NDArray[np.int64], blocks: list[NDArray[np.uint8]]) -> None:
        """Puts what came from each rank where the steps read it. Nothing in it is trusted."""
        raise NotImplementedError

    def _at(self, offset: int, count: int, dtype: Any) -> NDArray[Any]:
        """A part of the memory that the steps read."""
        return np.frombuffer(self._memory, dtype, count, offset)
