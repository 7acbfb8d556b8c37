"""The native steps over torch.distributed: what a rank would publish in shared memory lies in memory of its own.

Behind its statement each rank sends each other rank what that one would read. Dispatch: the tokens that it wants, once
each, and what all tokens chose, from which the receiver knows everything else. Combine: its rows, and where they
belong. C++ writes and reads the messages (``native/messages.h``), Python carries them. A group takes these steps if all
its ranks have the library, and a kind of call that was legal before is remembered as in `windows.repeated`.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ascend_moe.cpu.distributed.exchange import Exchange
from ascend_moe.cpu.distributed.messages import Buffer, Posted, room_for
from ascend_moe.cpu.distributed.peers import GroupState
from ascend_moe.cpu.operators.statements import found_in
from ascend_moe.cpu.windows.areas import Area
from ascend_moe.cpu.windows.engine import Native
from ascend_moe.cpu.windows.fields import PEER_WORDS, Code, MailFields, Phase
from ascend_moe.cpu.windows.layout import SENT_WORDS
from ascend_moe.cpu.windows.repeated.call import FastCall
from ascend_moe.cpu.windows.repeated.combine import Combine
from ascend_moe.cpu.windows.repeated.dispatch import Dispatch
from ascend_moe.cpu.windows.repeated.prepared import Checked
from ascend_moe.cpu.windows.repeated.tensors import Tensors
from ascend_moe.cpu.windows.rows_in_place import RowsInPlace
from ascend_moe.outputs import mapping


class Far:
    """A group without shared memory, as the native steps see it."""

    def __init__(self, group: dist.ProcessGroup, state: GroupState, native: Native) -> None:
        self.rank, self.ranks, self.native = group.rank(), group.size(), native
        self.group, self.state = weakref.ref(group), state
        self.peers = np.zeros((self.ranks, PEER_WORDS), np.int64)
        self.mail = MailFields(0, self.ranks, self.rank)
        self.mail.peers, self.mail.room = self.peers.ctypes.data, room_for(self.ranks)
        self.address = ctypes.addressof(self.mail)
        self.areas = {"dispatch": Area(), "combine": Area()}
        self.cache_bytes = 1 << 62  # rows are read again at once
        self.in_place = RowsInPlace([])
        self.outgoing, self.blocks = Buffer(), Buffer()

    def make_room(self, size: int) -> None:
        """For messages that leave."""
        self.outgoing.of(size)
        self.mail.outgoing, self.mail.capacity = self.outgoing.address, len(self.outgoing.bytes)

    def carry(self, exchange: Exchange, *, announced: bool) -> Posted | None:
        """Exchanges what the steps wrote; announced: the blocks that did not fit into the messages."""
        sent, received = self.peers[:, 0].tolist(), self.peers[:, 1].tolist()
        outgoing = self.outgoing.of(sum(sent))
        if announced:
            incoming = self.blocks.of(sum(received))
            exchange.blocks(outgoing, sent, incoming, received)
            self.mail.incoming = self.blocks.address
            return None
        posted = exchange.messages(outgoing, sent)
        self.mail.incoming = posted.incoming.ctypes.data
        return posted


class Steps(FastCall):
    """What both operators do here."""

    kept_at_most: ClassVar[int] = 32  # each has memory of its own
    in_one_function: ClassVar[bool] = False  # Python carries the messages
    _waited: list[int]

    def __init__(self, far: Far, checked: Checked) -> None:
        windows: Any = far
        super().__init__(windows, checked)
        self.far = far
        self._memory = np.frombuffer(mapping(self.needed, huge_pages=True), np.uint8)
        self.fields.base = self._memory.ctypes.data
        self._step = getattr(far.native, f"far_{self.op}")

    def _takes_its_steps(self, tensors: Tensors) -> bool:
        far, fields, group = self.far, self.fields, self.far.group()
        assert group is not None
        if self._blended:
            self._before(tensors)
        measured, posted = tensors[self._performance_info] is not None, None
        exchange = Exchange(group, what=self.what, measured=measured)
        far.mail.number, fields.phase = far.state.messages + 1, Phase.START
        while (code := self._step(self._argument)) not in (Code.DONE, Code.BAD_ROWS):
            if code == Code.WAITING:
                posted = far.carry(exchange, announced=posted is not None)
            elif code == Code.LOOK:
                assert posted is not None
                found = found_in(posted.statements(), "ep_rank_id", names=far.state.names)
                if found:
                    self._raise(tensors, found)
                fields.phase = Phase.JUDGED
            elif code == Code.NOT_PUBLISHED:
                far.make_room(fields.detail)
            elif code == Code.INVALID:
                return False
            else:
                exchange.reject(fields.detail)
        bad = self._bad_rows()
        if bad:
            self._raise(tensors, bad)
        self._waited = exchange.waited
        return True

    def _add_waiting(self, info: Tensor) -> None:
        info += torch.tensor(self._waited)


class FarDispatch(Steps, Dispatch):
    """Dispatch."""

    def _set_layout(self, rows_per_token: int) -> None:
        # Smooth factors make a row per pair; whether a rank has them is its own affair.
        super()._set_layout(self._sizes.slots if self.fields.quantised else 1)


class FarCombine(Steps, Combine):
    """Combine."""

    def _set_layout(self, rows_per_token: int) -> None:
        super()._set_layout(rows_per_token)
        fields = self.fields
        fields.sent_at = 0  # rows stay where they arrive
        fields.lists_at = -(-self.windows.ranks * SENT_WORDS * 8 // 64) * 64
        self.needed = fields.lists_at + self.windows.ranks * 12 * fields.max_rows
