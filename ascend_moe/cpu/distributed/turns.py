"""One call at a time on each group, and what becomes of one that ends half-way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from ascend_moe.contract.errors import ConstraintError, PeerError
from ascend_moe.patience import TIMEOUT_VARIABLE, patience

THREADS_VARIABLE: Final = "ASCEND_MOE_CPU_THREADS"
ORDERED: Final = "ordered"
"""Says that the threads that call on one group make their calls in the same order on all ranks."""


class Turn:
    """A lock that is held over a call.

    After an exception in the middle of a call (a signal, Ctrl-C) the ranks of its group are out of step.

    Whoever sends the first message sets ``begun``. An exception that all ranks know of ends the call; any other one
    ends the group. Where not even that can be done, because a second signal comes meanwhile, the next call does it.
    """

    def __init__(self, interrupted: Callable[[str], None]) -> None:
        """interrupted: gives the group up; takes the name of the exception."""
        self._lock = threading.RLock()
        self.free, self.done = self._lock.acquire, self._lock.release
        self._interrupted = interrupted
        self.begun = False
        """Whether messages of a call may be on their way."""
        self.thread = threading.get_ident()
        """The one that calls; 0: several do, and that has been told."""

    def __enter__(self) -> None:
        if not self.free(False):
            self.wait()
        if self.begun:
            self.was_left()

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if self.begun:
            self.ends(kind)
        self.done()

    def wait(self) -> None:
        """Until the call of another thread ends; PeerError when that takes too long."""
        seconds = patience()
        if not self._lock.acquire(timeout=seconds):
            text = f"a call of another thread did not end within {seconds:g} s ({TIMEOUT_VARIABLE})"
            raise PeerError(text, ())

    def was_left(self) -> None:
        """Another call begins although one never ended; also a call within a call, by a signal handler."""
        self._interrupted("another call began")
        self.begun = False

    def ends(self, kind: type[BaseException] | None) -> None:
        """The call ends, with an exception of this kind."""
        if kind is not None and not issubclass(kind, ConstraintError):
            self._interrupted(kind.__name__)
        self.begun = False
