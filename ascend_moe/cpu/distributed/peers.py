"""What a group remembers between calls, and how a failure of its ranks is told."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

from ascend_moe.contract.errors import PeerError
from ascend_moe.cpu.distributed.group import resolve
from ascend_moe.cpu.distributed.messages import Buffer
from ascend_moe.cpu.distributed.whereabouts import elsewhere
from ascend_moe.patience import TIMEOUT_VARIABLE


@dataclass
class GroupState:
    """Memory of one process group of this process."""

    broken: str = ""
    """Why the group cannot be used any more."""
    owed: list[Any] = field(default_factory=list)
    """Statements of refused calls that are still on their way (`exchange`)."""
    messages: int = 0
    """How many statements this rank sent to each of the others."""
    incoming: Buffer = field(default_factory=Buffer)
    """Where messages arrive."""
    transport_chosen: bool = False
    windows: Any = None
    """The group's shared memory (`windows.group.Windows`); None: rows travel over torch.distributed."""
    far: Any = None
    """The group for the native steps over torch.distributed (`steps.Far`); None: some rank lacks the library."""
    calls: dict[tuple[object, ...], Any] = field(default_factory=dict)
    """Kinds of calls that were found legal (`windows.repeated`)."""


_states: weakref.WeakKeyDictionary[dist.ProcessGroup, GroupState] = weakref.WeakKeyDictionary()


def state_of(group: dist.ProcessGroup) -> GroupState:
    """The memory of a group; it goes with the group."""
    state = _states.get(group)
    if state is None:
        state = _states[group] = GroupState()
    return state


_by_name: dict[str, tuple[weakref.ref[dist.ProcessGroup], weakref.ref[GroupState]]] = {}


def state_named(name: str) -> GroupState | None:
    """The memory of the group that ``group_ep`` names; None when this process has no such group."""
    known = _by_name.get(name)
    if known is not None:
        group, state = known[0](), known[1]()
        if state is not None and group in getattr(c10d, "_pg_names", ()):  # else destroyed
            return state
    group = resolve(name)
    if group is None:
        return None
    state = state_of(group)
    _by_name[name] = weakref.ref(group), weakref.ref(state)
    return state


def require_usable(state: GroupState, what: str) -> None:
    """Raises PeerError when a call failed in a way after which ranks can no longer agree; what: names this one."""
    if state.broken:
        raise PeerError(f"{what}: the group cannot be used any more: {state.broken}", ())


def failure(
    group: dist.ProcessGroup | None, late: Sequence[int], gone: Sequence[int], seconds: float
) -> str:
    """Who is the reason that a group cannot go on.

    late: ranks that did not arrive in time; gone: ranks that died, or gave up on the call themselves
    """
    parts = []
    if late:
        parts.append(
            f"{_named(late)} did not arrive within {seconds:g} s ({TIMEOUT_VARIABLE})"
            + (elsewhere(group, late, seconds) if group is not None else "")
        )
    if gone:
        parts.append(
            f"{_named(gone)} closed the connection: the process died or gave up on this call"
        )
    return "; ".join(parts)


def _named(ranks: Sequence[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, sorted(ranks)))}"
