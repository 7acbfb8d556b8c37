"""`shrink`: the ranks that are left of a CPU group meet again without the others."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d
from torch import Tensor

from ascend_moe.contract.elastic import Elastic
from ascend_moe.contract.errors import PeerError
from ascend_moe.contract.limits import HIERARCHY
from ascend_moe.contract.shapes import World
from ascend_moe.cpu.distributed.exchange import Exchange
from ascend_moe.cpu.distributed.group import Survivors, resolve, title, titles
from ascend_moe.cpu.distributed.peers import GroupState, state_of
from ascend_moe.cpu.distributed.steps import Far
from ascend_moe.cpu.survivors.boards import SharedMemory, Store
from ascend_moe.cpu.survivors.meeting import Meeting
from ascend_moe.cpu.windows import memory
from ascend_moe.cpu.windows.control import control_bytes
from ascend_moe.cpu.windows.group import Windows
from ascend_moe.patience import patience

LATER_S: Final = 6.0
"""By how much the wait exceeds the time limit of calls: until then others may not know that somebody is dead."""
CONNECT_S: Final = 3.0
"""How long ranks that agreed try to connect over torch.distributed: what is longer means that one died meanwhile."""


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
        board = SharedMemory(current.windows) if with_memory else Store(_group_of(current, what))
        meeting = current.meeting = Meeting(board)
    meeting.agree(gone, deadline, what=what, names=names)
    fresh = _in_memory if with_memory else _over_the_store
    try:
        found = fresh(group, current, elastic, meeting, deadline, what)
    except OSError:
        raise  # the note stays, and says so to the others
    except BaseException:
        meeting.leave()
        raise
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
    gone = [rank for rank in elastic.gone if not state.names]
    if not state.broken:
        state.give_up(text, gone=gone)
    state.broken = text
    state.calls.clear()
    state.windows = state.far = state.meeting = None


def _require_served(state: GroupState, what: str) -> World:
    """What is known of the group. Raises RuntimeError when it cannot go on without some ranks."""
    served: Served | None = state.served
    reason = ""
    if served is None:
        reason = "no call of dispatch or combine was made on it"
    elif served.product == "A2":
        reason = "on A2 the operators take no elastic_info (X-30)"
    elif served.with_tp:
        reason = "with tp_world_size = 2 the operators take no elastic_info (X-30)"
    elif served.path == HIERARCHY:
        reason = (
            "in hierarchy the operators take no elastic_info (X-30), not even for a whole server"
        )
    elif not state.transport_chosen:
        reason = "its ranks never completed a call"
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


def _group_of(state: GroupState, what: str) -> dist.ProcessGroup:
    group = state.group()
    assert group is not None, what
    return group


def _new_state(group: Any, whole: dist.ProcessGroup, elastic: Elastic) -> GroupState:
    """Of a group of survivors."""
    state = state_of(group)
    state.transport_chosen, state.names = True, elastic.old_ranks
    titles[group] = title(whole)
    return state


def _in_memory(
    whole: dist.ProcessGroup,
    current: GroupState,
    elastic: Elastic,
    meeting: Meeting,
    deadline: float,
    what: str,
) -> Survivors:
    """A fresh control memory, made by the first rank that is left."""
    old: Windows = current.windows
    names = current.names or tuple(range(old.ranks))
    left = [rank for rank, name in enumerate(names) if name in elastic.old_ranks]
    size, descriptor = control_bytes(len(left)), -1
    try:
        if old.rank == left[0]:
            try:
                descriptor = memory.create(size)
            except OSError as error:
                meeting.offer(-1, error.errno or 0)
                raise
            offer = os.getpid(), descriptor
            meeting.offer(*offer)
        else:
            offer = meeting.offered_by(left[0], deadline, what=what, names=names)
            if offer[0] < 0:
                text = f"rank {names[left[0]]} has no memory for a fresh context: {os.strerror(offer[1])}"
                raise OSError(offer[1], f"{what}: {text}")
        control = memory.map_of_process(*offer, size)
        group: Any = Survivors(_name(whole, elastic), left.index(old.rank), len(left))
        state = _new_state(group, whole, elastic)
        pids = [old.pids[rank] for rank in left]
        try:
            windows = Windows(group, state, control, pids, old.native)
        except ProcessLookupError:  # between the look at the notes and now
            raise PeerError(f"{what}: another rank died as well; shrink once more", ()) from None
        windows.what = what
        windows.next_barrier(deadline)
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    # What callers hold of `empty_expert_outputs` is theirs still.
    windows.in_place.own, windows.in_place.ever = old.in_place.own, old.in_place.ever
    state.windows = windows
    survivors: Survivors = group
    return survivors


def _over_the_store(
    whole: dist.ProcessGroup,
    current: GroupState,
    elastic: Elastic,
    meeting: Meeting,
    deadline: float,
    what: str,
) -> dist.ProcessGroup:
    """A new group of torch.distributed, under a name that no earlier attempt has left anything under."""
    names = current.names or tuple(range(whole.size()))
    leader = names.index(elastic.old_ranks[0])
    if leader == meeting.board.own:
        number = secrets.randbits(62)
        meeting.offer(number, 1)
    else:
        number, _ = meeting.offered_by(leader, deadline, what=what, names=names)
    seconds = max(min(deadline - time.monotonic(), CONNECT_S), 0.1)
    try:
        group = _new_group(whole, elastic, f"{_name(whole, elastic)}/{number}", seconds)
    except (RuntimeError, ValueError) as error:
        raise _not_connected(what, error) from None
    state = _new_state(group, whole, elastic)
    try:
        with state.turn:
            Exchange(group, what=what, seconds=seconds).statements([], [0] * group.size())
            state.turn.begun = False
    except PeerError as error:
        dist.destroy_process_group(group)
        raise _not_connected(what, error) from None
    if current.far is not None:
        state.far = Far(group, state, current.far.native)
    return group


def _new_group(
    whole: dist.ProcessGroup, elastic: Elastic, name: str, seconds: float
) -> dist.ProcessGroup:
    """As `torch.distributed.new_group` does it for some ranks alone, which cannot be told a name."""
    lookup: Any = c10d
    ranks = [dist.get_global_rank(whole, rank) for rank in elastic.old_ranks]
    own = ranks.index(dist.get_rank())
    store = lookup._world.pg_map[whole][1]
    timeout = timedelta(seconds=seconds)
    backend = dist.Backend("gloo")
    group, _ = lookup._new_process_group_helper(
        len(ranks), own, ranks, backend, store, name, timeout=timeout
    )
    lookup._world.pg_group_ranks[group] = {rank: at for at, rank in enumerate(ranks)}
    new: dist.ProcessGroup = group
    return new


def _name(whole: dist.ProcessGroup, elastic: Elastic) -> str:
    return f"{whole.group_name}/without {','.join(map(str, elastic.gone))}"


def _not_connected(what: str, error: Exception) -> PeerError:
    """Who is the reason nobody can tell: the next meeting will."""
    reason = str(error).splitlines()[0]
    return PeerError(f"{what}: those that are left could not connect; shrink again: {reason}", ())
