"""Words that ranks leave in the rendezvous store when they give up: because of whom, and where they waited.

A rank that gives up because of another is not the reason, although its connections end as if it were. So each leaves
the ranks that it blames under its own name, and who misses it asks there first.

``group_ep`` must name the same group on all ranks (X-40). Ranks that call on different groups never meet, so no
statement can tell. But they all give up at about the same time: a rank that does leaves a word in the rendezvous store
and looks for those of the ranks it missed. Nothing of this happens in a call that succeeds.

The store may live in a process that stopped. So nobody waits for it longer than a moment.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

LOOK_S: Final = 5.0
"""How long a rank that gave up looks, at most."""
_RECENT_S: Final = 60.0
WORD_S: Final = 0.4
"""How long a rank that is missed has to say why; one that waits for another gives up at about the same time."""
_STORE_S: Final = 0.3
"""How long the store may take to answer."""
_ANY_WORD: Final = "ascend_moe/blames"
_Found = TypeVar("_Found")


def leave_word(group: dist.ProcessGroup, late: Sequence[int], gone: Sequence[int]) -> None:
    """Says to the ranks of ``group`` whom this one blames."""

    def leave() -> None:
        store = _store_of(group)
        store.set(_word(group.rank()), json.dumps([[*late], [*gone]]))
        store.set(_ANY_WORD, "")

    _within(_STORE_S, leave)


def words_left(group: dist.ProcessGroup) -> list[int]:
    """Ranks that gave up on the group."""

    def look() -> list[int]:
        store = _store_of(group)
        if not store.check([_ANY_WORD]):
            return []
        ranks = [rank for rank in range(group.size()) if rank != group.rank()]
        return [rank for rank in ranks if store.check([_word(rank)])]

    return _within(_STORE_S, look) or []


def who_is_the_reason(
    group: dist.ProcessGroup, late: Sequence[int], gone: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Late and gone ranks, those replaced by whom they blame who say so themselves."""
    words: dict[int, list[list[int]]] = {}

    def look() -> None:
        store, deadline = _store_of(group), time.monotonic() + WORD_S
        while True:
            for rank in {*late, *gone} - words.keys():
                if store.check([_word(rank)]):
                    words[rank] = json.loads(store.get(_word(rank)))
            if words.keys() >= {*late, *gone} or time.monotonic() > deadline:
                return
            time.sleep(0.02)

    _within(WORD_S + _STORE_S, look)
    known = dict(words)
    by_kind = []
    for kind, ranks in enumerate((late, gone)):
        blamed = {rank for word in known.values() for rank in word[kind]}
        by_kind.append(sorted({*ranks} - known.keys() | blamed))
    return by_kind[0], by_kind[1]


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
