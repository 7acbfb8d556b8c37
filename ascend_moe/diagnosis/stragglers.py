"""Who waits for whom, from recorded ``performance_info``: which rank is slow.

Dispatch and combine write into ``performance_info`` how many microseconds a rank waited for each rank of its EP group.
A caller that reads the tensor after every step, and sets it to zero, has one number for each step, waiting rank and
rank that is waited for.

Waiting alone does not say who is slow. A rank that is early waits for everybody, and an operator that counts the wait
for each rank from the same moment (CANN's kernels do) counts the same time once for each of them. What one rank waits
for another *more than for most others* is that one's own: the *delay* of a rank, as another saw it in a step, is its
wait less the median of that other's waits (the lower one, its own 0 among them). In a step the rank with the largest
mean delay is its *last* rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MOST_STEPS: Final = 0.5
"""A rank is called slow when it is the last one in more than this part of the steps in which somebody waited."""


@dataclass(frozen=True)
class Waiting:
    """What the ranks of one EP group waited."""

    waiters: Sequence[int]
    """The ranks that recorded, in ascending order."""
    microseconds: NDArray[np.float64]
    """(steps, waiters, ranks): for each step, how long each of `waiters` waited for each rank of the group."""

    @classmethod
    def of(cls, by_rank: Mapping[int, NDArray[Any]]) -> Waiting:
        """From what each rank recorded: integers (steps, ranks). Raises ValueError, naming the rank, if they differ."""
        waiters = sorted(by_rank)
        first = by_rank[waiters[0]]
        for rank in waiters:
            found = by_rank[rank]
            if found.shape != first.shape:
                raise ValueError(
                    f"rank {rank} recorded {_size(found)}, rank {waiters[0]} {_size(first)}; needed: the same steps"
                )
            if rank >= found.shape[1]:
                raise ValueError(
                    f"rank {rank} recorded waits for {found.shape[1]} ranks, of which it is none"
                )
            if found.size and int(found.min()) < 0:
                raise ValueError(f"rank {rank} recorded {int(found.min())} us, needed: >= 0")
        return cls(waiters, np.stack([by_rank[rank] for rank in waiters], axis=1).astype(float))

    @property
    def steps(self) -> int:
        return int(self.microseconds.shape[0])

    @property
    def ranks(self) -> int:
        """Of the group."""
        return int(self.microseconds.shape[2])

    def mean(self) -> NDArray[np.float64]:
        """(waiters, ranks): microseconds per step."""
        return np.asarray(self.microseconds.mean(axis=0))

    def delays(self) -> NDArray[np.float64]:
        """(steps, ranks): the mean delay of each rank, as the others saw it."""
        usual = np.quantile(self.microseconds, 0.5, axis=2, method="lower", keepdims=True)
        more = np.maximum(self.microseconds - usual, 0.0)
        others = [sum(waiter != rank for waiter in self.waiters) for rank in range(self.ranks)]
        return np.asarray(more.sum(axis=1) / np.maximum(others, 1))


@dataclass(frozen=True)
class Standing:
    """One rank of the group."""

    rank: int
    waited_for: float
    """Microseconds per step that another rank waited for it: the mean over the ranks that recorded."""
    longest: float
    """The longest such wait of all steps."""
    delay: float
    """Microseconds per step, see above."""
    last: int
    """Steps in which its delay was the largest."""
    waits: float | None
    """Microseconds per step of its own longest wait: 0 for who is always last. None: it recorded nothing."""


def standings(waiting: Waiting) -> list[Standing]:
    """All ranks of the group, the one with the largest delay first."""
    delays = waiting.delays()
    last = np.bincount(
        delays.argmax(axis=1)[delays.max(axis=1) > 0.0], minlength=waiting.ranks
    ).tolist()
    found = []
    for rank in range(waiting.ranks):
        others = [i for i, waiter in enumerate(waiting.waiters) if waiter != rank]
        column = waiting.microseconds[:, others, rank]
        own = None
        if rank in waiting.waiters:
            row = waiting.microseconds[:, waiting.waiters.index(rank)]
            own = float(row.max(axis=1).mean())
        mean, longest = (float(column.mean()), float(column.max())) if others else (0.0, 0.0)
        found.append(Standing(rank, mean, longest, float(delays[:, rank].mean()), last[rank], own))
    return sorted(found, key=lambda one: (-one.delay, one.rank))


def verdict(waiting: Waiting) -> str:
    """Which rank is slow, in one sentence."""
    found = standings(waiting)
    contested = sum(one.last for one in found)
    if not contested:
        return "no rank was waited for longer than the others"
    most = max(found, key=lambda one: one.last)
    often = f"the last one in {most.last} of {waiting.steps} steps"
    if most.last > MOST_STEPS * waiting.steps:
        return f"rank {most.rank} is slow: {often}, {most.delay:.0f} us per step later than most others"
    return f"no rank is slow in most steps; most often it is rank {most.rank}, {often}"


def _size(found: NDArray[Any]) -> str:
    return f"{found.shape[0]} steps of {found.shape[1]} ranks"
