"""The ranks that are left of a CPU group meet again without the others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ascend_moe.contract.elastic import Elastic
from ascend_moe.contract.errors import PeerError
from ascend_moe.contract.limits import HIERARCHY
from ascend_moe.contract.shapes import World
from ascend_moe.cpu.distributed.group import title
from ascend_moe.cpu.distributed.peers import GroupState, state_of
from ascend_moe.cpu.survivors.boards import SharedMemory, Store
from ascend_moe.cpu.survivors.fresh import in_memory, over_the_store
from ascend_moe.cpu.survivors.meeting import Meeting


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


def shrink(group: dist.ProcessGroup, dead_ranks: Sequence[int], seconds: float) -> Tensor:
    """See `ascend_moe.shrink`."""
    state = state_of(group)
    with state.turn:
        return _shrink(group, state, dead_ranks, time.monotonic() + seconds)


def confirm(group: dist.ProcessGroup) -> None:
    """See `ascend_moe.confirm`."""
    state = state_of(group)
    current: GroupState = state_of(state.shrunk.group) if state.shrunk else state
    if current.broken:
        raise PeerError(f"ascend_moe.confirm on {title(group)}: {current.broken}", current.culprits)


def missing_ranks(group: dist.ProcessGroup) -> list[int]:
    """See `ascend_moe.missing_ranks`."""
    state = state_of(group)
    current: GroupState = state_of(state.shrunk.group) if state.shrunk else state
    return sorted(current.culprits)


def _shrink(
    group: dist.ProcessGroup, state: GroupState, dead_ranks: Sequence[int], deadline: float
) -> Tensor:
    what = f"ascend_moe.shrink on {title(group)}"
    world = _require_served(state, what)
    before = state.shrunk
    already = before.elastic.gone if before else []
    elastic = left_of(world, group.rank(), {*already, *dead_ranks}, already, what)
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


def left_of(
    world: World, own: int, gone: set[int], already: Sequence[int] | None, what: str
) -> Elastic:
    """The group without ranks. Raises ValueError where that cannot be.

    already: those that it goes on without, if somebody has to be gone besides
    """
    outside = sorted(rank for rank in gone if rank not in range(world.ep_world_size))
    if outside:
        raise ValueError(
            f"{what}: dead_ranks has {outside[0]}, allowed: 0..{world.ep_world_size - 1}"
        )
    if own in gone:
        raise ValueError(f"{what}: dead_ranks has {own}, which is this rank")
    if already is not None and gone == set(already):
        raise ValueError(f"{what}: dead_ranks names nobody who is not gone already")
    try:
        return Elastic.of_survivors(world, gone)
    except ValueError as error:
        raise ValueError(f"{what}: without ranks {sorted(gone)} {error}") from None
