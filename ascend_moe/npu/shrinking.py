"""`shrink` and `missing_ranks` for a group on NPUs."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ascend_moe.contract.elastic import Elastic
from ascend_moe.contract.errors import PeerError
from ascend_moe.contract.shapes import World
from ascend_moe.cpu.survivors.meeting import Meeting, called
from ascend_moe.cpu.survivors.shrinking import left_of
from ascend_moe.npu import library
from ascend_moe.npu.notes import WindowNotes
from ascend_moe.ranks import capturing, met_otherwise


@dataclass
class _Group:
    """What this process remembers of a group whose ranks have met."""

    tag: int
    notes: WindowNotes
    meeting: Meeting
    agreed: frozenset[int] = frozenset()
    """Gone by the last agreement."""
    without: frozenset[int] = frozenset()
    """Gone in the context: the last agreement that led to one."""


_groups: dict[str, _Group] = {}


def knows(name: str) -> bool:
    """Whether the kernel library has opened a group of that name on the current device."""
    return library.members(name) is not None


def shrink(name: str, dead_ranks: Sequence[int], seconds: float) -> Tensor:
    """See `ascend_moe.shrink`."""
    group, world, what = _met(name, "ascend_moe.shrink")
    meeting, notes = group.meeting, group.notes
    # A launch may give up although nobody is gone: the same ranks open the windows again.
    failed = library.failure(name, notes.ranks) is not None
    already = None if failed else sorted(group.without)
    elastic = left_of(world, notes.own, {*group.without, *dead_ranks}, already, what)
    gone, names, deadline = frozenset(elastic.gone), range(notes.ranks), time.monotonic() + seconds
    meeting.agree(gone, deadline, what=what, names=names)
    group.agreed = gone
    try:
        nonce = _fresh_nonce(meeting, elastic, deadline, what)
        limit_ms = max(int((deadline - time.monotonic()) * 1000), 1)
        missing = library.reopen(name, elastic.words(), nonce, limit_ms, notes.ranks)
        notes.reached -= gone
    finally:
        meeting.leave()
    if missing:
        text = f"{called(missing, names)} did not come into the fresh context; shrink once more"
        raise PeerError(f"{what}: {text}", sorted(missing))
    group.without = gone
    met_otherwise(name)
    return torch.tensor(elastic.words(), dtype=torch.int32, device="npu")


def missing_ranks(name: str, seconds: float) -> list[int]:
    """See `ascend_moe.missing_ranks`."""
    group, _, _ = _met(name, "ascend_moe.missing_ranks")
    deadline = time.monotonic() + seconds
    return sorted(group.meeting.call_the_roll(group.agreed, deadline) - group.agreed)


def confirm(name: str) -> None:
    """See `ascend_moe.confirm`."""
    npu: Any = torch
    problem: RuntimeError | None = None
    try:
        npu.npu.synchronize()
    except RuntimeError as error:  # of the group, or of anything else on the device
        problem = error
    found = library.members(name)
    failed = library.failure(name, found.ranks) if found is not None else None
    if failed is not None:
        raise PeerError(failed[0], sorted(failed[1])) from problem
    if problem is not None:
        raise problem


def _met(name: str, function: str) -> tuple[_Group, World, str]:
    """The group, when all that was launched on the device has ended, however."""
    if capturing():
        raise RuntimeError(f"{function}: a graph is being captured on the current stream")
    npu: Any = torch
    with suppress(RuntimeError):  # launches have failed; that is why we are here
        npu.npu.synchronize()
    found = library.members(name)
    assert found is not None
    rank = f"rank {found.rank} of " if found.ours else ""
    what = f"{function} on {rank}group {name!a}"
    world = _require_served(found, what)
    group = _groups.get(name)
    if group is None or group.tag != found.note_tag:
        notes = WindowNotes(name, found)
        group = _groups[name] = _Group(found.note_tag, notes, Meeting(notes))
    return group, world, what


def _require_served(group: library.Members, what: str) -> World:
    """What is known of the group. Raises RuntimeError when it cannot go on without some ranks."""
    reason = ""
    if not group.ours:
        reason = "CANN's own kernels serve it, which are not told who is left (ASCEND_MOE_KERNELS)"
    elif group.tp:
        reason = "with tp_world_size = 2 the operators take no elastic_info (X-30)"
    elif not group.moe_expert_num:
        reason = "no call of dispatch or combine was made on it"
    elif group.a2:
        reason = "on A2 the operators take no elastic_info (X-30)"
    elif group.hierarchy:
        reason = "in hierarchy the operators take no elastic_info (X-30)"
    elif not group.note_words:
        reason = f"it has {group.ranks} ranks, and its windows have room for the notes of 554"
    if reason:
        raise RuntimeError(f"{what}: the group cannot go on without some ranks: {reason}")
    return World.of(
        ep_world_size=group.ranks,
        moe_expert_num=group.moe_expert_num,
        shared_expert_num=group.shared_expert_num,
        shared_expert_rank_num=group.shared_expert_rank_num,
    )


def _fresh_nonce(meeting: Meeting, elastic: Elastic, deadline: float, what: str) -> int:
    """From the first rank that is left."""
    leader = elastic.old_ranks[0]
    if meeting.board.own == leader:
        nonce = secrets.randbelow(2**32 - 1) + 1
        meeting.offer(nonce, 0)
        return nonce
    names = range(meeting.board.ranks)
    return meeting.offered_by(leader, deadline, what=what, names=names)[0]
