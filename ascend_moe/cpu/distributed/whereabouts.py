"""Where a late rank is instead: waiting on another group, perhaps.

``group_ep`` must name the same group on all ranks (X-40). Ranks that call on different groups never meet, so no
statement can tell. But they all give up at about the same time: a rank that does leaves a word in the rendezvous store
and looks for those of the ranks it missed. Nothing of this happens in a call that succeeds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Final

import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

LOOK_S: Final = 5.0
"""How long a rank that gave up looks, at most."""
_RECENT_S: Final = 60.0


def elsewhere(group: dist.ProcessGroup, late: Sequence[int], seconds: float) -> str:
    """What the late ranks of ``group`` wait for instead, as the end of a sentence; empty when nothing is known.

    late:    ranks in the group
    seconds: the time limit that has just passed
    """
    lookup: Any = c10d
    own, found = str(group.group_name), []
    try:
        store = lookup._get_default_store()
        store.set(_key(dist.get_rank()), json.dumps([time.time(), own]))
        deadline = time.monotonic() + min(LOOK_S, seconds / 2)
        for rank in late:
            other = _wait_for(store, _key(dist.get_global_rank(group, rank)), deadline)
            if other not in (None, own):
                found.append(f"rank {rank} waits on group_ep {other!a}")
    except (RuntimeError, ValueError):
        return ""  # the store went with its host; who is late is known all the same
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
