"""What a group remembers between calls, and how a failure of its ranks is told."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

from ascend_moe.contract.errors import PeerError
from ascend_moe.cpu.distributed.group import Survivors, resolve
from ascend_moe.cpu.distributed.messages import Buffer
from ascend_moe.cpu.distributed.turns import Turn
from ascend_moe.cpu.distributed.whereabouts import elsewhere, leave_word, who_is_the_reason
from ascend_moe.patience import TIMEOUT_VARIABLE, patience

_FORKED: Final = "this process was forked from a rank of it; make a group of its own"


@dataclass
class GroupState:
    """Memory of one process group of this process."""

    group: weakref.ref[dist.ProcessGroup]
    broken: str = ""
    """Why the group cannot be used any more."""
    culprits: tuple[int, ...] = ()
    """Ranks that are the reason."""
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
    served: Any = None
    """What the last legal call said of the group (`survivors.shrinking.Served`)."""
    shrunk: Any = None
    """How it goes on without some of its ranks (`survivors.shrinking.Shrunk`)."""
    meeting: Any = None
    """Where its ranks agree who is gone (`survivors.meeting`)."""
    names: tuple[int, ...] = ()
    """Of a group of survivors: the old ranks, by which its ranks are called in errors."""

    def __post_init__(self) -> None:
        self.turn = Turn(self._interrupted)

    def give_up(self, reason: str, *, late: Sequence[int] = (), gone: Sequence[int] = ()) -> None:
        """Nothing more can be done with this group: neither here nor, once they notice, on the peers.

        late, gone: the ranks that are the reason
        """
        self.broken, self.culprits = reason, tuple(self.named(sorted({*late, *gone})))
        self.calls.clear()
        if self.windows is not None:
            self.windows.leave(late, gone)
        group = self.group()
        if group is not None and not isinstance(group, Survivors):
            leave_word(group, (late, gone))

    def named(self, ranks: Sequence[int]) -> list[int]:
        """What ranks are called."""
        return [self.names[rank] for rank in ranks] if self.names else list(ranks)

    def fail(self, what: str, *, late: Sequence[int] = (), gone: Sequence[int] = ()) -> NoReturn:
        """Gives the group up, and tells which ranks are the reason; what: names the call.

        late: ranks that did not arrive in time; gone: ranks that died, or gave up on the call themselves
        """
        seconds, group = patience(), self.group()
        reason = _failure(self.named(late), self.named(gone), seconds)
        self.give_up(reason, late=late, gone=gone)
        if group is not None and late and not isinstance(group, Survivors):
            self.broken += elsewhere(group, late, seconds)
        raise PeerError(f"{what}: {self.broken}", self.culprits)

    def fail_by_word(
        self,
        what: str,
        *,
        late: Sequence[int] = (),
        gone: Sequence[int] = (),
        misses: Sequence[int],
    ) -> NoReturn:
        """The same after asking who of these ranks gave up because of others; misses: those this one waits for."""
        group = self.group()
        if group is not None:
            late, gone = who_is_the_reason(group, (late, gone), misses)
        self.fail(what, late=late, gone=gone)

    def reject(self, what: str, rank: int) -> NoReturn:
        """Gives the group up: what ``rank`` published would lead astray."""
        (name,) = self.named([rank])
        self.give_up(f"rank {name} published rows that cannot be", gone=[rank])
        raise PeerError(f"{what}: {self.broken}", [name])

    def _interrupted(self, name: str) -> None:
        """A call ended between its first message and its end."""
        if self.broken:
            return
        group = self.group()
        own = [] if group is None else [group.rank()]
        who = f"rank {self.named(own)[0]}" if own else "this rank"
        self.give_up(f"{who} was interrupted in a call ({name})", gone=own)


_states: weakref.WeakKeyDictionary[dist.ProcessGroup, GroupState] = weakref.WeakKeyDictionary()


def state_of(group: dist.ProcessGroup) -> GroupState:
    """The memory of a group; it goes with the group."""
    state = _states.get(group)
    if state is None:
        if not _states:
            _watch_forks()
        state = _states[group] = GroupState(weakref.ref(group))
    return state


_by_name: dict[str, tuple[weakref.ref[dist.ProcessGroup], weakref.ref[GroupState]]] = {}


def state_named(name: str) -> GroupState | None:
    """The memory of the group that ``group_ep`` names; None when this process has no such group."""
    known = _by_name.get(name)
    if known is not None:
        group, state = known[0](), known[1]()
        there = isinstance(group, Survivors) or group in getattr(c10d, "_pg_names", ())
        if state is not None and there:  # else destroyed
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
        text = f"{what}: the group cannot be used any more: {state.broken}"
        raise PeerError(text, state.culprits)


_forks_are_watched: list[bool] = []


def _watch_forks() -> None:
    if not _forks_are_watched:
        os.register_at_fork(after_in_child=_disown)
        _forks_are_watched.append(True)


def _disown() -> None:
    """In a forked child: it never speaks for its parent.

    Its groups stay to the end: without their threads, which a fork leaves behind, torch waits for ever to end one.
    """
    groups: Any = c10d
    for group in groups._world.pg_map:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
    for state in list(_states.values()):
        state.broken, state.turn = _FORKED, Turn(state._interrupted)
        state.calls.clear()
        if state.windows is not None:
            state.windows.speaks = False


def _failure(late: Sequence[int], gone: Sequence[int], seconds: float) -> str:
    """Who is the reason that a group cannot go on."""
    parts = []
    if late:
        parts.append(f"{_named(late)} did not arrive within {seconds:g} s ({TIMEOUT_VARIABLE})")
    if gone:
        parts.append(
            f"{_named(gone)} closed the connection: the process died or gave up on this call"
        )
    return "; ".join(parts)


def _named(ranks: Sequence[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, sorted(ranks)))}"
