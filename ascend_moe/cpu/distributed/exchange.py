"""The exchange of one call between the ranks of a group: a collective for the statements, then one for the rows.

A collective costs half of what a message per pair of ranks does, but when it fails it only says that it failed. So each
block that a rank receives ends in something that was not there before: whose block has not arrived is known when time
is over. A connection that broke is known at once, and by whom: no message to that rank can be started any more.

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
from typing import Any, Final, NoReturn

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d
from numpy.typing import NDArray
from torch import Tensor

from ascend_moe.contract.errors import PeerError
from ascend_moe.cpu.distributed.peers import failure, require_usable, state_of
from ascend_moe.patience import timeout_seconds

REFUSAL_S: Final = 2.0
"""How long a rank that refuses a call waits for its peers' statements, to tell all that is wrong at once."""

REASON_BYTES: Final = 256
_LOOK_S: Final = 0.0002
"""Between two looks at who has arrived, when somebody wants to know how long that took."""
_GRACE_S: Final = 0.2
"""A collective ends by itself at the time limit; if it does not, it is given up this much later."""
_TAG: Final = 0x0E9
_ARRIVED: Final = 1
_NOT_YET: Final = 0xFF
_c10d: Any = c10d


@dataclass(frozen=True)
class Statement:
    """What one rank says before its rows: numbers, rows for the reader, and why it refuses (empty if it does not)."""

    numbers: list[int]
    rows: int
    refusal: str
    way: int = 0
    """Which steps follow (`windows.group`)."""


@dataclass(frozen=True)
class _Posted:
    """A collective on its way; its tensors must live as long as it does."""

    work: dist.Work | None
    """None when it could not even be started."""
    incoming: Tensor
    outgoing: Tensor


class Exchange:
    """One call's exchange with the peers of a group."""

    def __init__(self, group: dist.ProcessGroup, *, what: str, measured: bool = False) -> None:
        """Nothing is sent yet.

        what: names the call in errors, for example ``npu_moe_distribute_dispatch_v2 on rank 3``
        measured: whether somebody wants to know `waited`
        """
        self._group, self._what, self._measured = group, what, measured
        self._rank, self._size = group.rank(), group.size()
        self.waited = [0.0] * self._size
        """Seconds for which this rank did nothing but wait for each rank's statement."""
        self._seconds = timeout_seconds()
        self._deadline = time.monotonic() + self._seconds
        self._state = state_of(group)
        require_usable(self._state, what)

    def statements(self, numbers: Sequence[int], rows: Sequence[int]) -> list[Statement]:
        """Sends this rank's statement to every peer and returns everybody's, by rank.

        rows: how many rows this rank will send to each rank.
        """
        return self.read(self.meet(numbers, rows))

    def meet(
        self, numbers: Sequence[int], rows: Sequence[int], *, way: int = 0
    ) -> NDArray[np.int64]:
        """The same as one line of words per rank: the numbers, then what `WAY`, `ROWS` and `REASON` say."""
        self._settle()
        posted = self._post(numbers, rows, "", way)
        if self._measured:
            self._measure(posted)
        self._complete(posted, _silent)
        said: NDArray[np.int64] = posted.incoming.numpy()
        return said

    def refuse(self, numbers: Sequence[int], reason: str) -> list[Statement] | None:
        """Tells every peer that this rank does not take part in the call.

        Returns everybody's statement when they come within `REFUSAL_S`, else None: a rank that alone made a call
        must not wait long to learn that the call is illegal.
        """
        posted = self._post(numbers, [0] * self._size, reason)
        self._state.owed.append(posted)
        deadline = time.monotonic() + min(REFUSAL_S, self._seconds)
        while _silent(posted.incoming.view(self._size, -1)):
            if posted.work is None or posted.work.is_completed() or time.monotonic() > deadline:
                return None
            time.sleep(0.001)
        self._settle()
        return self.read(posted.incoming.numpy())

    def rows(
        self, outgoing: Tensor, send_counts: Sequence[int], receive_counts: Sequence[int]
    ) -> Tensor:
        """Moves rows: ``outgoing`` (n, pitch) uint8 grouped by destination, returns (m, pitch) grouped by source."""
        incoming = outgoing.new_empty(sum(receive_counts), outgoing.shape[1])
        last = np.cumsum(receive_counts)[np.array(receive_counts) > 0] - 1
        rows = incoming.numpy()
        rows[last] = _NOT_YET

        def silent(_: Tensor) -> list[int]:
            missing = iter((rows[last] == _NOT_YET).all(axis=1))
            return [peer for peer, count in enumerate(receive_counts) if count and next(missing)]

        self._complete(self._start(incoming, outgoing, receive_counts, send_counts), silent)
        return incoming

    def bytes(
        self,
        outgoing: NDArray[np.uint8],
        send_sizes: Sequence[int],
        incoming: NDArray[np.uint8],
        receive_sizes: Sequence[int],
    ) -> None:
        """Moves blocks of bytes, grouped by destination and by source; no block ends in 255."""
        last = np.cumsum(receive_sizes)[np.array(receive_sizes) > 0] - 1
        incoming[last] = _NOT_YET
        tensors = torch.from_numpy(incoming), torch.from_numpy(outgoing)

        def silent(_: Tensor) -> list[int]:
            missing = iter(incoming[last] == _NOT_YET)
            return [rank for rank, size in enumerate(receive_sizes) if size and next(missing)]

        self._complete(self._start(*tensors, receive_sizes, send_sizes), silent)

    WAY: Final = -4 - REASON_BYTES // 8
    ROWS: Final = -3 - REASON_BYTES // 8
    REASON: Final = -2 - REASON_BYTES // 8
    """Words of a statement; the text of the reason follows its length."""

    def _post(
        self, numbers: Sequence[int], rows: Sequence[int], reason: str, way: int = 0
    ) -> _Posted:
        text = reason.encode("ascii", "replace")[:REASON_BYTES].ljust(REASON_BYTES, b"\0")
        said = np.empty((self._size, len(numbers) + 4 + REASON_BYTES // 8), np.int64)
        said[:, : len(numbers)] = numbers
        said[:, self.WAY], said[:, self.ROWS], said[:, self.REASON] = way, rows, len(reason)
        said[:, self.REASON + 1 : -1] = np.frombuffer(text, np.int64)
        said[:, -1] = _ARRIVED
        return self._start(torch.zeros(said.shape, dtype=torch.int64), torch.from_numpy(said))

    def read(self, said: NDArray[np.int64]) -> list[Statement]:
        """What `meet` returned, by rank; the own refusal is no news."""
        found = []
        for rank, words in enumerate(said):
            refused = words[self.REASON] and rank != self._rank
            reason = words[self.REASON + 1 : -1].tobytes().rstrip(b"\0").decode("ascii")
            numbers, way = words[: self.WAY].tolist(), int(words[self.WAY])
            found.append(Statement(numbers, int(words[self.ROWS]), reason if refused else "", way))
        return found

    def _start(
        self,
        incoming: Tensor,
        outgoing: Tensor,
        received: Sequence[int] = (),
        sent: Sequence[int] = (),
    ) -> _Posted:
        """Starts a collective that ends by itself at the time limit."""
        options = _c10d.AllToAllOptions()
        options.timeout = timedelta(seconds=max(self._deadline - time.monotonic(), 0.001))
        group: Any = self._group
        try:
            work = group.alltoall_base(incoming, outgoing, list(received), list(sent), options)
        except RuntimeError:  # a connection is gone
            work = None
        return _Posted(work, incoming, outgoing)

    def _settle(self) -> None:
        """Completes the statements of calls that this rank refused before its peers came."""
        owed, self._state.owed = self._state.owed, []
        for posted in owed:
            self._complete(posted, _silent)

    def _complete(self, posted: _Posted, silent: Callable[[Tensor], list[int]]) -> None:
        """Waits for a collective. When it fails, raises PeerError.

        silent: says which ranks' blocks have not arrived
        """
        if posted.work is None:
            self._fail(late=[], gone=self._gone())
        left = max(self._deadline - time.monotonic(), 0.0) + _GRACE_S
        try:
            posted.work.wait(timedelta(seconds=left))
        except RuntimeError as error:
            text = str(error).lower()
            if "timed out" in text or "timeout" in text:
                missing = silent(posted.incoming) or self._peers()
                self._fail(late=[rank for rank in missing if rank != self._rank], gone=[])
            self._fail(late=[], gone=self._gone() or silent(posted.incoming))

    def _gone(self) -> list[int]:
        """Ranks with whom nothing can be begun any more."""
        return [peer for peer in self._peers() if not self._is_connected(peer)]

    def _is_connected(self, peer: int) -> bool:
        source = dist.get_global_rank(self._group, peer)
        try:
            dist.irecv(torch.empty(1), source, group=self._group, tag=_TAG)
        except RuntimeError:
            return False
        return True

    def _peers(self) -> list[int]:
        return [rank for rank in range(self._size) if rank != self._rank]

    def _fail(self, late: Sequence[int], gone: Sequence[int]) -> NoReturn:
        self._state.broken = failure(self._group, late, gone, self._seconds)
        raise PeerError(f"{self._what}: {self._state.broken}", sorted({*late, *gone}))

    def _measure(self, posted: _Posted) -> None:
        """Looks who arrives when, and notes how long this rank waited for whom, looking at them in order."""
        assert posted.work is not None or not self._peers()
        began = time.perf_counter()
        for peer in self._peers():
            while not int(posted.incoming[peer, -1]) and not self._is_over(posted):
                time.sleep(_LOOK_S)
            moment = time.perf_counter()
            self.waited[peer] += moment - began
            began = moment

    def _is_over(self, posted: _Posted) -> bool:
        done = posted.work is None or posted.work.is_completed()
        return done or time.monotonic() > self._deadline


def _silent(incoming: Tensor) -> list[int]:
    """Whose statements are not here. Bytes come in order and the last word of a statement is never zero."""
    missing: NDArray[Any] = incoming.numpy()[:, -1] != _ARRIVED
    return [int(rank) for rank in missing.nonzero()[0]]
