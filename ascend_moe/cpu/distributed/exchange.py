"""The exchange of one call between the ranks of a group: one collective, and one more for rows that did not fit.

Each rank sends each other rank a message: its statement, and the rows behind it. A collective costs half of what a
message per pair of ranks does by itself, but when it fails it only says that it failed. So a message ends in a number
that was not there before: whose has not arrived is known when time is over. A connection that broke is known at once,
and by whom: no message to that rank can be started any more.

What can go wrong, and who learns it:

* a rank refuses its call (its arguments are illegal): its statement says so, with the reason, and its peers raise
  that reason and its rank. It waits for them only briefly; what comes later is received at the start of its next call.
* ranks disagree: everybody holds all statements, so everybody finds the same disagreement. The group stays usable.
* a rank dies, or does not call within ``ASCEND_MOE_TIMEOUT_S`` seconds: the others raise PeerError with its rank, and
  the group cannot be used any more (messages of this call may still be on the way): later calls say so at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, NoReturn

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d
from torch import Tensor

from ascend_moe.cpu.distributed.messages import (
    MESSAGE,
    Buffer,
    Bytes,
    Posted,
    end,
    length_of,
    parts,
    room_for,
)
from ascend_moe.cpu.distributed.peers import require_usable, state_of
from ascend_moe.cpu.distributed.whereabouts import peers_of, words_left
from ascend_moe.cpu.operators.statements import Statement, write
from ascend_moe.patience import patience

REFUSAL_S: Final = 2.0
"""How long a rank that refuses a call waits for its peers' statements, to tell all that is wrong at once."""

_LOOK_S: Final = 0.0002
"""Between two looks at who has arrived, when somebody wants to know how long that took."""
_GRACE_S: Final = 0.2
"""A collective ends by itself so long after the time limit: who gives up says why before its connections close."""
_SLICE_S: Final = 0.25
"""How long a rank sleeps at most before it looks whether a peer gave up, and a signal is served."""
_TAG: Final = 0x0E9
_c10d: Any = c10d


class Exchange:
    """One call's exchange with the peers of a group."""

    def __init__(
        self,
        group: dist.ProcessGroup,
        *,
        what: str,
        measured: bool = False,
        seconds: float | None = None,
    ) -> None:
        """Nothing is sent yet.

        what: names the call in errors, for example ``npu_moe_distribute_dispatch_v2 on rank 3``
        measured: whether somebody wants to know `waited`
        seconds: how long to wait; default `patience`
        """
        self._group, self._what, self._measured = group, what, measured
        self._rank, self._size = group.rank(), group.size()
        self.waited = [0] * self._size
        """Microseconds for which this rank did nothing but wait for each rank's statement."""
        self._seconds = patience() if seconds is None else seconds
        self._deadline = time.monotonic() + self._seconds
        self._state = state_of(group)
        require_usable(self._state, what)

    def statements(self, numbers: Sequence[int], rows: Sequence[int]) -> list[Statement]:
        """Sends this rank's statement to every peer and returns everybody's, by rank.

        rows: how many rows this rank will send to each rank.
        """
        posted = self.messages(*self._without_rows(numbers, rows, ""))
        missing = posted.missing()
        if missing:
            self.reject(missing[0])
        return posted.statements()

    def messages(self, outgoing: Bytes, sent: list[int]) -> Posted:
        """Exchanges messages that begin with a statement."""
        self._settle()
        posted = self._post(outgoing, sent)
        if self._measured:
            self._measure(posted)
        self._complete(posted)
        return posted

    def refuse(self, numbers: Sequence[int], reason: str) -> list[Statement] | None:
        """Tells every peer that this rank does not take part in the call.

        Returns everybody's statement when they come within `REFUSAL_S`, else None: a rank that alone made a call
        must not wait long to learn that the call is illegal.
        """
        posted = self._post(*self._without_rows(numbers, [0] * self._size, reason))
        self._state.incoming = Buffer()  # the old one is this message's, until it comes
        self._state.owed.append(posted)
        deadline = time.monotonic() + min(REFUSAL_S, self._seconds)
        while posted.missing():
            if posted.work is None or posted.work.is_completed() or time.monotonic() > deadline:
                return None
            time.sleep(0.001)
        self._settle()
        return posted.statements()

    def rows(
        self, outgoing: Tensor, send_counts: Sequence[int], receive_counts: Sequence[int]
    ) -> Tensor:
        """Moves rows: ``outgoing`` (n, pitch) uint8 grouped by destination, returns (m, pitch) grouped by source."""
        pitch = outgoing.shape[1]
        sent, received = (
            [length_of(pitch * count) if count else 0 for count in counts]
            for counts in (send_counts, receive_counts)
        )
        blocks, incoming = np.empty(sum(sent), np.uint8), np.zeros(sum(received), np.uint8)
        for block, rows in zip(
            parts(blocks, sent), parts(outgoing.numpy(), send_counts), strict=True
        ):
            if len(rows):
                block[: rows.size] = rows.reshape(-1)
                end(block, self._state.messages)
        self.blocks(blocks, sent, incoming, received)
        found = outgoing.new_empty(sum(receive_counts), pitch)
        for block, rows in zip(
            parts(incoming, received), parts(found.numpy(), receive_counts), strict=True
        ):
            rows.reshape(-1)[:] = block[: rows.size]
        return found

    def blocks(
        self, outgoing: Bytes, sent: list[int], incoming: Bytes, received: list[int]
    ) -> None:
        """Exchanges messages of a size that was announced, one rank's behind the other's."""
        posted = self._start(outgoing, sent, incoming, received, announced=True)
        self._complete(posted)

    def reject(self, rank: int) -> NoReturn:
        """Gives the group up: what ``rank`` sent would lead astray."""
        self._state.reject(self._what, rank)

    def _without_rows(
        self, numbers: Sequence[int], rows: Sequence[int], reason: str
    ) -> tuple[Bytes, list[int]]:
        """Messages to all ranks, and how long each is."""
        length, number = length_of(MESSAGE.itemsize), self._state.messages + 1
        messages = np.zeros((self._size, length), np.uint8)
        heads = messages[:, : MESSAGE.itemsize].view(MESSAGE)[:, 0]
        heads["number"], heads["rows"] = number, rows
        write(heads["said"], numbers, reason)
        messages[:, -8:].view(np.int64)[:] = number
        return messages.reshape(-1), [length] * self._size

    def _post(self, outgoing: Bytes, sent: list[int]) -> Posted:
        received = [room_for(self._size)] * self._size
        received[self._rank] = sent[self._rank]
        self._state.turn.begun = True
        self._state.messages += 1
        incoming = self._state.incoming.of(sum(received))
        return self._start(outgoing, sent, incoming, received, announced=False)

    def _start(
        self,
        outgoing: Bytes,
        sent: list[int],
        incoming: Bytes,
        received: list[int],
        *,
        announced: bool,
    ) -> Posted:
        """Starts a collective that ends by itself soon after the time limit."""
        options = _c10d.AllToAllOptions()
        options.timeout = timedelta(seconds=max(self._deadline - time.monotonic(), 0) + _GRACE_S)
        group: Any = self._group
        tensors = torch.from_numpy(incoming), torch.from_numpy(outgoing)
        try:
            work = group.alltoall_base(*tensors, received, sent, options)
        except RuntimeError:  # a connection is gone
            work = None
        return Posted(work, self._state.messages, announced, outgoing, incoming, received)

    def _settle(self) -> None:
        """Completes the statements of calls that this rank refused before its peers came."""
        owed, self._state.owed = self._state.owed, []
        for posted in owed:
            self._complete(posted)

    def _complete(self, posted: Posted) -> None:
        """Waits for a collective. When it fails, raises PeerError."""
        work, answers, timed_out = posted.work, True, False
        while work is not None and not timed_out:
            left = self._deadline - time.monotonic()
            ended = work.is_completed()
            try:
                work.wait(timedelta(seconds=min(max(left, 0.001), _SLICE_S)))
                return
            except RuntimeError as error:
                text = str(error).lower()
            if ended or work.is_completed():  # what ends while a wait gives up is asked once more
                if ended and "timed out" not in text and "timeout" not in text:
                    break
                timed_out = ended
            elif left <= 0:
                timed_out = True
            elif answers:
                said = words_left(self._group)
                answers = said is not None
                if said and not work.is_completed():
                    self._state.fail_by_word(self._what, gone=said, misses=posted.missing())
        missing = [rank for rank in posted.missing() if rank != self._rank]
        if timed_out:
            self._state.fail_by_word(
                self._what, late=missing or peers_of(self._group), misses=missing
            )
        self._state.fail_by_word(self._what, gone=self._gone() or missing, misses=missing)

    def _gone(self) -> list[int]:
        """Ranks with whom nothing can be begun any more."""
        return [peer for peer in peers_of(self._group) if not self._is_connected(peer)]

    def _is_connected(self, peer: int) -> bool:
        source = dist.get_global_rank(self._group, peer)
        try:
            dist.irecv(torch.empty(1), source, group=self._group, tag=_TAG)
        except RuntimeError:
            return False
        return True

    def _measure(self, posted: Posted) -> None:
        """Looks who arrives when, and notes how long this rank waited for whom, looking at them in order."""
        assert posted.work is not None or not peers_of(self._group)
        began = time.perf_counter()
        messages = parts(posted.incoming, posted.received)
        for peer in peers_of(self._group):
            while not posted.is_here(messages[peer]) and not self._is_over(posted):
                time.sleep(_LOOK_S)
            moment = time.perf_counter()
            self.waited[peer] += round((moment - began) * 1e6)
            began = moment

    def _is_over(self, posted: Posted) -> bool:
        done = posted.work is None or posted.work.is_completed()
        return done or time.monotonic() > self._deadline
