"""Words that ranks leave in the rendezvous store when they give up: because of whom, and where they waited.

A rank that gives up because of another is not the reason, although its connections end as if it were. So each says
whom it misses before it lets go, and whoever misses it follows these words to the ranks at their end: those that left
none, for they are dead, stopped or late, and those that blame themselves. A rank that waits gives up no later than one
that waits for it: its call began before the other one's. So a word that does not come within a moment does not come.

``group_ep`` must name the same group on all ranks (X-40). Ranks that call on different groups never meet, so no
statement can tell. But they all give up at about the same time: a rank that does leaves a word in the rendezvous store
and looks for those of the ranks it missed. Nothing of this happens in a call that succeeds.

The store may live in a process that stopped. So nobody waits for it longer than a moment.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

LOOK_S: Final = 5.0
"""How long a rank that gave up looks, at most."""
_RECENT_S: Final = 60.0
WORD_S: Final = 0.5
"""How long a rank that is missed has to say why."""
_STORE_S: Final = 0.3
"""How long the store may take to answer."""
_ANY_WORD: Final = "ascend_moe/blames"
_Found = TypeVar("_Found")
Word = tuple[Sequence[int], Sequence[int]]
"""Whom a rank misses: those that are late, those that are gone."""


def leave_word(group: dist.ProcessGroup, word: Word) -> None:
    """Says to the ranks of ``group`` whom this one blames."""
    _within(_STORE_S, lambda: _leave(_store_of(group), group.rank(), word))


def words_left(group: dist.ProcessGroup) -> list[int] | None:
    """Ranks that gave up on the group; None when the store does not answer."""

    def look() -> list[int]:
        store = _store_of(group)
        if not store.check([_ANY_WORD]):
            return []
        return [rank for rank in peers_of(group) if store.check([_word(rank)])]

    return _within(_STORE_S, look)


def who_is_the_reason(group: dist.ProcessGroup, start: Word, misses: Sequence[int]) -> Word:
    """Leaves word, and follows the words of all from ``start`` on; misses: the ranks that this one waits for."""
    own = group.rank()
    words: dict[int, Word] = {own: (misses, ())}
    said: list[Word] = []

    def look() -> None:
        store, deadline = _store_of(group), time.monotonic() + WORD_S
        while True:
            for rank in peers_of(group):
                if rank not in words and store.check([_word(rank)]):
                    words[rank] = json.loads(store.get(_word(rank)))
            said.append(follow(own, start, words))
            if len(said) == 1:
                _leave(store, own, said[0])
            late, gone = said[-1]
            if words.keys() >= {*late, *gone} or time.monotonic() > deadline:
                return
            time.sleep(0.02)

    _within(WORD_S + _STORE_S, look)
    return said[-1] if said else start


def follow(own: int, start: Word, words: Mapping[int, Word]) -> Word:
    """Who is at the end of what ranks say of each other: ranks without a word, or who blame themselves.

    Where nobody is, the last to speak is: this rank, if the words lead to it.
    """
    late, gone = found = set[int](), set[int]()
    seen: set[int] = set()
    ahead = _by_kind(start)
    while ahead:
        rank, kind = ahead.pop()
        if rank not in seen:
            seen.add(rank)
            blamed = _by_kind(words.get(rank, ((), ())))
            if rank not in words or rank in dict(blamed):
                found[dict(blamed).get(rank, kind)].add(rank)
            ahead += blamed
    if late or gone:
        return sorted(late - gone), sorted(gone)
    return ([own], []) if own in seen else start


def _by_kind(word: Word) -> list[tuple[int, int]]:
    return [(rank, kind) for kind, ranks in enumerate(word) for rank in ranks]


def _leave(store: Any, rank: int, word: Word) -> None:
    store.set(_word(rank), json.dumps([[*ranks] for ranks in word]))
    store.set(_ANY_WORD, "")


def peers_of(group: dist.ProcessGroup) -> list[int]:
    return [rank for rank in range(group.size()) if rank != group.rank()]


def _store_of(group: dist.ProcessGroup) -> Any:
    """The part of the rendezvous store that is the group's own."""
    lookup: Any = c10d
    return lookup._world.pg_map[group][1]


def _word(rank: int) -> str:
    return f"ascend_moe/blames/{rank}"


def _within(seconds: float, look: Callable[[], _Found]) -> _Found | None:
    """What is found in so much time; None when the store does not answer, or went with its host."""
    found: list[_Found] = []

    def run() -> None:
        try:
            found.append(look())
        except Exception:  # of whatever kind the store raises: who is missing is known all the same
            return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None


def elsewhere(group: dist.ProcessGroup, late: Sequence[int], seconds: float) -> str:
    """What the late ranks of ``group`` wait for instead, as the end of a sentence; empty when nothing is known.

    late:    ranks in the group
    seconds: the time limit that has just passed
    """
    own, patience = str(group.group_name), min(LOOK_S, seconds / 2)

    def look() -> list[str]:
        lookup: Any = c10d
        store, found = lookup._get_default_store(), []
        store.set(_key(dist.get_rank()), json.dumps([time.time(), own]))
        deadline = time.monotonic() + patience
        for rank in late:
            other = _wait_for(store, _key(dist.get_global_rank(group, rank)), deadline)
            if other not in (None, own):
                found.append(f"rank {rank} waits on group_ep {other!a}")
        return found

    found = _within(patience + _STORE_S, look)
    if not found:
        return ""
    return (
        f"; {', '.join(found)}, this rank on {own!a} (X-40: group_ep must be the same on all ranks)"
    )


def _key(global_rank: int) -> str:
    return f"ascend_moe/gave_up/{global_rank}"


def _wait_for(store: Any, key: str, deadline: float) -> str | None:
    while True:
        if store.check([key]):
            when, group = json.loads(store.get(key))
            if time.time() - when < _RECENT_S:
                return str(group)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.05)
