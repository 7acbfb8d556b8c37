"""`shrink`: the ranks that are left of a CPU group meet again without the others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

from ascend_moe.contract.elastic import Elastic
from ascend_moe.contract.limits import HIERARCHY
from ascend_moe.contract.shapes import World
from ascend_moe.cpu.distributed.group import Survivors, resolve, title
from ascend_moe.cpu.distributed.peers import GroupState, state_of
from ascend_moe.cpu.survivors.boards import SharedMemory, Store
from ascend_moe.cpu.survivors.fresh import in_memory, over_the_store
from ascend_moe.cpu.survivors.meeting import Meeting
from ascend_moe.patience import patience

LATER_S: Final = 6.0
"""By how much the wait exceeds the time limit of calls: until then others may not know that somebody is dead."""


@dataclass(frozen=True)
class Served:
    """What a legal call said of its group."""

    world: World
    product: str
    path: str
    with_tp: bool


@dataclass
class Shrunk:
    """How a group goes on without some of its ranks."""

    group: Any
    """Of those that are left: `Survivors`, or a group of torch.distributed. It goes with this."""
    elastic: Elastic
    words: list[int]
    legal: set[tuple[object, ...]] = field(default_factory=set)
    """Kinds of calls that were found legal, in old numbers (`operators.elastic`)."""


def shrink(group_ep: str, dead_ranks: Sequence[int], *, timeout_s: float | None = None) -> Tensor:
    """The ranks of an EP group that are left meet again without the dead, and go on.

    Call it on every rank that is left, with the same ranks, after a `PeerError` named them. From then on pass what it
    returns as ``elastic_info`` to dispatch and combine; their other arguments stay those of the whole group, except
    that ``expert_ids`` are numbered as the experts that are left are. Calls without it end in an error. When another
    rank dies, shrink again: ranks that were gone already may be named again or not.

    Args:
        group_ep: the group, as in the operators. Dispatch or combine must have been called on it.
        dead_ranks: ranks in the group that are gone; any of them may still be alive, it is left out.
        timeout_s: how long to wait for the others; default ``ASCEND_MOE_TIMEOUT_S`` and 6 s, because they may learn
            as late as that that somebody is dead.

    Returns:
        ``elastic_info``: int32 (4 + 2 * ep_world_size,) on the device of the group: who is left, in ascending order.

    Raises:
        PeerError: ranks that are left did not come in time or died as well (``.ranks``), or have another view of who
            is gone: the message has all views, ``.ranks`` those that only others believe to be gone. Shrink again.
        ValueError: the arguments name no group, no such ranks, this rank, or nobody useful is left.
        RuntimeError: this group cannot go on without some ranks: on an NPU, on A2, with TP, in hierarchy, or over
            torch.distributed after the rendezvous store has died.
        OSError: no shared memory for a fresh context.
    """
    seconds = patience() + LATER_S if timeout_s is None else timeout_s
    if not 0.0 <= seconds < float("inf"):
        raise ValueError(f"timeout_s is {timeout_s}, needed: a number of seconds >= 0")
    group = resolve(group_ep)
    if group is None or isinstance(group, Survivors):
        raise ValueError(
            f"group_ep {group_ep!a} names no CPU group of torch.distributed of this process; ranks on NPUs cannot go "
            "on without others"
        )
    state = state_of(group)
    with state.turn:
        return _shrink(group, state, dead_ranks, time.monotonic() + seconds)


def _shrink(
    group: dist.ProcessGroup, state: GroupState, dead_ranks: Sequence[int], deadline: float
) -> Tensor:
    what = f"ascend_moe.shrink on {title(group)}"
    world = _require_served(state, what)
    before = state.shrunk
    already = before.elastic.gone if before else []
    elastic = _left(world, group.rank(), {*already, *dead_ranks}, already, what)
    current: GroupState = state_of(before.group) if before else state
    names = before.elastic.old_ranks if before else tuple(range(group.size()))
    gone = [rank for rank, name in enumerate(names) if name not in elastic.old_ranks]
    with_memory = current.windows is not None
    meeting = current.meeting
    if meeting is None:
        members = before.group if before else group
        board = SharedMemory(current.windows) if with_memory else Store(members)
        meeting = current.meeting = Meeting(board)
    meeting.agree(gone, deadline, what=what, names=names)
    fresh = in_memory if with_memory else over_the_store
    try:
        found = fresh(group, current, elastic, meeting, deadline, what)
    finally:
        meeting.leave()
    words = elastic.words()
    state.shrunk = Shrunk(found, elastic, words)
    _close(state, elastic)
    if before:
        _close(current, elastic)
    return torch.tensor(words, dtype=torch.int32)


def _close(state: GroupState, elastic: Elastic) -> None:
    """What is not up to date any more tells so, and gives its memory back."""
    text = f"the group goes on without ranks {elastic.gone} (ascend_moe.shrink): pass the elastic_info that it returned"
    if not state.broken:
        state.give_up(text, gone=[] if state.names else elastic.gone)
    state.broken = text
    state.calls.clear()
    state.windows = state.far = state.meeting = None


def _require_served(state: GroupState, what: str) -> World:
    """What is known of the group. Raises RuntimeError when it cannot go on without some ranks."""
    served: Served | None = state.served
    reason = ""
    if served is None:
        reason = "its ranks have never agreed about a call of dispatch or combine"
    elif served.product == "A2":
        reason = "on A2 the operators take no elastic_info (X-30)"
    elif served.with_tp:
        reason = "with tp_world_size = 2 the operators take no elastic_info (X-30)"
    elif served.path == HIERARCHY:
        reason = (
            "in hierarchy the operators take no elastic_info (X-30), not even for a whole server"
        )
    if served is None or reason:
        raise RuntimeError(f"{what}: the group cannot go on without some ranks: {reason}")
    return served.world


def _left(world: World, own: int, gone: set[int], already: Sequence[int], what: str) -> Elastic:
    outside = sorted(rank for rank in gone if rank not in range(world.ep_world_size))
    if outside:
        raise ValueError(
            f"{what}: dead_ranks has {outside[0]}, allowed: 0..{world.ep_world_size - 1}"
        )
    if own in gone:
        raise ValueError(f"{what}: dead_ranks has {own}, which is this rank")
    if gone == set(already):
        raise ValueError(f"{what}: dead_ranks names nobody who is not gone already")
    try:
        return Elastic.of_survivors(world, gone)
    except ValueError as error:
        raise ValueError(f"{what}: without ranks {sorted(gone)} {error}") from None
