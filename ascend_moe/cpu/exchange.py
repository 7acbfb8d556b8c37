"""The exchange of one call between the ranks of a group: statements first, then rows.

Point-to-point messages instead of collectives, for one reason: each wait is for one known peer, so a peer that died or
never calls is named. (A collective that fails says that it failed, and one that waits holds a worker thread that
cannot be stopped.) Per call and pair of ranks there is one statement and, if any row travels, one block of rows.

What can go wrong, and who learns it:

* a rank refuses its call (its arguments are illegal): its statement says so, with the reason, and its peers raise
  that reason and its rank. It waits for them only briefly; what comes later is received at the start of its next call.
* ranks disagree: everybody holds all statements, so everybody finds the same disagreement. The group stays usable.
* a rank dies, or does not call within ``ASCEND_MOE_TIMEOUT_S`` seconds: the others raise PeerError with its rank, and
  the group cannot be used any more (messages of this call may still be on the way): later calls say so at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from ascend_moe.contract.errors import PeerError
from ascend_moe.cpu.peers import failure, require_usable, state_of
from ascend_moe.patience import timeout_seconds

FAREWELL_S: Final = 5.0
"""How long a failing rank helps its healthy peers to receive its statement, so that they name the culprit, not it."""

REFUSAL_S: Final = 2.0
"""How long a rank that refuses a call waits for its peers' statements, to tell all that is wrong at once."""

REASON_BYTES: Final = 256
_TAG: Final = 0x0E9
_ARRIVED: Final = 1


@dataclass(frozen=True)
class Statement:
    """What one rank says before its rows: numbers, rows for the reader, and why it refuses (empty if it does not)."""

    numbers: list[int]
    rows: int
    refusal: str
    way: int = 0
    """Which steps follow (`windows.group`); always the same over torch.distributed."""


@dataclass(frozen=True)
class _Message:
    """A message on its way; the tensor must live as long as the work."""

    peer: int
    work: dist.Work | None
    """None when it could not even be started: the connection is gone."""
    content: Tensor


class Exchange:
    """One call's messages with the peers of a group."""

    def __init__(self, group: dist.ProcessGroup, *, what: str) -> None:
        """what: names the call in errors, for example ``npu_moe_distribute_dispatch_v2 on rank 3``."""
        self._group = group
        self._what = what
        self._rank = group.rank()
        self._global_ranks = dist.get_process_group_ranks(group)
        self._peers = [rank for rank in range(group.size()) if rank != self._rank]
        self.waited = [0.0] * group.size()
        """Seconds for which this rank did nothing but wait for what each rank had to send."""
        self._seconds = timeout_seconds()
        self._deadline = time.monotonic() + self._seconds
        self._sends: list[_Message] = []
        self._failures: dict[int, RuntimeError] = {}
        self._state = state_of(group)
        require_usable(self._state, what)

    def statements(self, numbers: Sequence[int], rows: Sequence[int]) -> list[Statement]:
        """Sends this rank's statement to every peer and returns everybody's, by rank.

        rows: how many rows this rank will send to each rank.
        """
        received = self._post_statements(numbers, rows, "")
        self._receive_owed()
        self._wait(received)
        return self._in_rank_order(numbers, rows[self._rank], received)

    def refuse(self, numbers: Sequence[int], reason: str) -> list[Statement] | None:
        """Tells every peer that this rank does not take part in the call.

        Returns everybody's statement when they come within `REFUSAL_S`, else None: a rank that alone made a call
        must not wait long to learn that the call is illegal.
        """
        owed = self._post_statements(numbers, [0] * self._group.size(), reason)
        deadline = time.monotonic() + min(REFUSAL_S, self._seconds)
        while not all(_arrived(message.content) for message in owed):
            if self._failures or time.monotonic() > deadline:
                self._state.owed += owed + self._sends
                return None
            time.sleep(0.001)
        self._receive_owed()
        self._wait(owed)
        self.finish()
        return self._in_rank_order(numbers, 0, owed)

    def rows(
        self, outgoing: Tensor, send_counts: Sequence[int], receive_counts: Sequence[int]
    ) -> Tensor:
        """Moves rows: ``outgoing`` (n, pitch) uint8 grouped by destination, returns (m, pitch) grouped by source."""
        incoming = outgoing.new_empty(sum(receive_counts), outgoing.shape[1])
        sources = torch.split(incoming, list(receive_counts))
        destinations = torch.split(outgoing, list(send_counts))
        received = [
            self._start(dist.irecv, sources[peer], peer)
            for peer in self._peers
            if receive_counts[peer]
        ]
        self._sends += [
            self._start(dist.isend, destinations[peer], peer)
            for peer in self._peers
            if send_counts[peer]
        ]
        sources[self._rank].copy_(destinations[self._rank])
        self._wait(received)
        return incoming

    def finish(self) -> None:
        """Waits until the peers have taken everything this rank sent; its buffers are free afterwards."""
        for message in self._sends:
            self._wait_for(message, self._deadline)
        if self._failures:
            self._fail()
        self._sends = []

    def _post_statements(
        self, numbers: Sequence[int], rows: Sequence[int], reason: str
    ) -> list[_Message]:
        words = len(numbers) + 2 + REASON_BYTES // 8
        received = [
            self._start(dist.irecv, torch.zeros(words, dtype=torch.int64), peer)
            for peer in self._peers
        ]
        self._sends += [
            self._start(dist.isend, _written(numbers, rows[peer], reason), peer)
            for peer in self._peers
        ]
        return received

    def _in_rank_order(
        self, numbers: Sequence[int], rows: int, received: Sequence[_Message]
    ) -> list[Statement]:
        by_rank = {message.peer: _read(message.content, len(numbers)) for message in received}
        by_rank[self._rank] = Statement(list(numbers), rows, "")
        return [by_rank[rank] for rank in range(self._group.size())]

    def _start(
        self, operation: Callable[..., dist.Work | None], content: Tensor, peer: int
    ) -> _Message:
        """Starts a message. A peer that is gone is remembered, not raised: the others must get theirs first."""
        work = None
        try:
            work = operation(content, self._global_ranks[peer], group=self._group, tag=_TAG)
        except RuntimeError as error:
            self._failures.setdefault(peer, error)
        return _Message(peer, work, content)

    def _receive_owed(self) -> None:
        """Takes what peers sent for calls that this rank refused; its buffers are free afterwards.

        Messages of one peer arrive in the order in which they were started, so these come before this call's.
        """
        owed, self._state.owed = self._state.owed, []
        self._wait(owed)

    def _wait(self, pending: Sequence[_Message]) -> None:
        for message in pending:
            began = time.perf_counter()
            self._wait_for(message, self._deadline)
            self.waited[message.peer] += time.perf_counter() - began
        if self._failures:
            self._fail()

    def _wait_for(self, message: _Message, moment: float) -> None:
        if message.work is None:
            return
        try:
            message.work.wait(timedelta(seconds=max(moment - time.monotonic(), 0.001)))
        except RuntimeError as error:
            self._failures.setdefault(message.peer, error)

    def _fail(self) -> NoReturn:
        """Raises PeerError for the peers that failed, after the healthy ones got this rank's messages."""
        failures = dict(self._failures)
        late = [peer for peer, error in failures.items() if _timed_out(error)]
        gone = [peer for peer in failures if peer not in late]
        farewell = time.monotonic() + FAREWELL_S
        for message in self._sends:
            if message.peer not in failures:
                self._wait_for(message, farewell)
        self._state.broken = failure(self._group, late, gone, self._seconds)
        raise PeerError(f"{self._what}: {self._state.broken}", sorted(failures))


def _timed_out(error: RuntimeError) -> bool:
    """Gloo says "Timed out" for the first late peer, and "Application timeout" for the others that are late too."""
    text = str(error).lower()
    return "timed out" in text or "timeout" in text


def _written(numbers: Sequence[int], rows: int, reason: str) -> Tensor:
    text = reason.encode("ascii", "replace")[:REASON_BYTES].ljust(REASON_BYTES, b"\0")
    words = torch.frombuffer(bytearray(text), dtype=torch.int64)
    head, tail = torch.tensor([*numbers, rows]), torch.tensor([_ARRIVED])
    return torch.cat([head, words, tail])


def _arrived(message: Tensor) -> bool:
    """Whether a statement is here. Bytes come in order and the last word of a statement is never zero."""
    return int(message[-1]) == _ARRIVED


def _read(message: Tensor, length: int) -> Statement:
    text = message[length + 1 : -1].numpy().tobytes().rstrip(b"\0")
    return Statement(message[:length].tolist(), int(message[length]), text.decode("ascii"))
