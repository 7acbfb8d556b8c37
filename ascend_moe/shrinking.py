"""A group goes on without some of its ranks: `confirm`, `missing_ranks`, `shrink`, wherever its tensors are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch.distributed as dist
from torch import Tensor

from ascend_moe.cpu.distributed.group import Survivors, resolve
from ascend_moe.cpu.survivors import shrinking as cpu
from ascend_moe.npu import shrinking as npu
from ascend_moe.patience import patience

LATER_S: Final = 6.0
"""By how much the wait exceeds the time limit of calls: until then others may not know that somebody is dead."""


def shrink(group_ep: str, dead_ranks: Sequence[int], *, timeout_s: float | None = None) -> Tensor:
    """The ranks of an EP group that are left meet again without the dead, and go on.

    Call it on every rank that is left, with the same ranks, after an error named them or `missing_ranks` did. From
    then on pass what it returns as ``elastic_info`` to dispatch and combine; their other arguments stay those of the
    whole group, except that ``expert_ids`` are numbered as the experts that are left are. Calls without it end in an
    error, and so do replays of graphs that were captured before. When another rank dies, shrink again: ranks that
    were gone already may be named again or not.

    Args:
        group_ep: the group, as in the operators. Dispatch or combine must have been called on it.
        dead_ranks: ranks in the group that are gone; any of them may still be alive, it is left out. After a failure
            on NPUs it may be empty: everybody was there, only late, and the group is opened again with all.
        timeout_s: how long to wait for the others; default ``ASCEND_MOE_TIMEOUT_S`` and 6 s, because they may learn
            as late as that that somebody is dead. On an NPU all that was launched has to end first, which it does
            within its own limit.

    Returns:
        ``elastic_info``: int32 (4 + 2 * ep_world_size,) on the device of the group: who is left, in ascending order.

    Raises:
        PeerError: ranks that are left did not come in time or died as well (``.ranks``), or have another view of who
            is gone: the message has all views, ``.ranks`` those that only others believe to be gone. Shrink again.
        ValueError: the arguments name no group, no such ranks, this rank, or nobody useful is left.
        RuntimeError: this group cannot go on without some ranks: on A2, with TP, in hierarchy, on NPUs where CANN's
            own kernels serve it, or over torch.distributed after the rendezvous store has died.
        OSError: no shared memory for a fresh context.
    """
    seconds = _seconds(timeout_s)
    group = _on_cpu(group_ep)
    if group is not None:
        return cpu.shrink(group, dead_ranks, seconds)
    return npu.shrink(group_ep, dead_ranks, seconds)


def confirm(group_ep: str) -> None:
    """Waits until what was launched on the device has ended; returns when the results of a group's calls are right.

    On an NPU a kernel that has waited too long ends without a word: the next call raises, and until then nobody can
    tell its results from right ones. Call this before results leave, once per step. On CPU every call has told
    already.

    Raises:
        PeerError: calls since the last `confirm` that went well may have ended without results. ``.ranks``: for whom
            a kernel has waited; `missing_ranks` finds out who is really gone.
        RuntimeError: something else on the device has failed.
        ValueError: as in `shrink`.
    """
    group = _on_cpu(group_ep)
    if group is not None:
        return cpu.confirm(group)
    return npu.confirm(group_ep)


def missing_ranks(group_ep: str, *, timeout_s: float | None = None) -> list[int]:
    """After an error on a group: which of its ranks are gone. All that are left call it, or are in `shrink`.

    On an NPU an error names a rank that a kernel has waited for, which may itself have waited for the one that died;
    so the ranks that are left look who of them is there. The virtual NPU knows at once which processes have ended;
    an NPU does not, there it takes ``timeout_s``. On CPU the `PeerError` has told already, and nobody waits.

    Args:
        group_ep: the group, as in the operators.
        timeout_s: how long to wait for the others; default as in `shrink`.

    Returns:
        Ranks in the group that are missing, besides those that it goes on without already.

    Raises:
        ValueError, RuntimeError: as in `shrink`.
    """
    seconds = _seconds(timeout_s)
    group = _on_cpu(group_ep)
    if group is not None:
        return cpu.missing_ranks(group)
    return npu.missing_ranks(group_ep, seconds)


def _seconds(timeout_s: float | None) -> float:
    seconds = patience() + LATER_S if timeout_s is None else timeout_s
    if not 0.0 <= seconds < float("inf"):
        raise ValueError(f"timeout_s is {timeout_s}, needed: a number of seconds >= 0")
    return seconds


def _on_cpu(group_ep: str) -> dist.ProcessGroup | None:
    """The group of that name, if its ranks are on CPU; None: the kernel library has opened it on NPUs."""
    group = resolve(group_ep)
    if group is not None and not isinstance(group, Survivors):
        return group
    if not npu.knows(group_ep):
        raise ValueError(
            f"group_ep {group_ep!a} names no CPU group of torch.distributed of this process, and none that the kernel "
            "library has opened on the current device"
        )
    return None
