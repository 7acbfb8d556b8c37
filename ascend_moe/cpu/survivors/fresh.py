"""A fresh context for those that agreed: memory that the first of them makes, or a new group of torch.distributed."""

from __future__ import annotations

import os
import secrets
import time
from datetime import timedelta
from typing import Any, Final

import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

from ascend_moe.contract.elastic import Elastic
from ascend_moe.contract.errors import PeerError
from ascend_moe.cpu.distributed.exchange import Exchange
from ascend_moe.cpu.distributed.group import Survivors, title, titles
from ascend_moe.cpu.distributed.peers import GroupState, state_of
from ascend_moe.cpu.distributed.steps import Far
from ascend_moe.cpu.survivors.meeting import Meeting
from ascend_moe.cpu.windows import memory
from ascend_moe.cpu.windows.control import control_bytes
from ascend_moe.cpu.windows.group import Windows

CONNECT_S: Final = 3.0
"""How long ranks that agreed try to connect over torch.distributed: what is longer means that one died meanwhile."""


def _new_state(group: Any, whole: dist.ProcessGroup, elastic: Elastic) -> GroupState:
    """Of a group of survivors."""
    state = state_of(group)
    state.transport_chosen, state.names = True, elastic.old_ranks
    titles[group] = title(whole)
    return state


def in_memory(
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


def over_the_store(
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
