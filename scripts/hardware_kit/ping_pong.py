"""Messages over the network card to a rank of another server and back, as one rank plays them.

The kernel is ``kernels/device/ping_pong.h``, the call ``kernels/op_api/ping_pong_probe.cpp``. Of two ranks the one with
the smaller number leads; a turn is a burst of messages and a tag there, and the same back. Every turn uses what the
turn before brought, so a message that was lost, late or old once is wrong in the end.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from hardware_kit.probe_library import BLOCK_WORDS, ProbeLibrary, Windows


class Burst(NamedTuple):
    """``turns`` of so many messages of so many bytes; in so many launches one after the other."""

    turns: int
    messages: int
    bytes: int
    launches: int = 1


class Probe(ctypes.Structure):
    """``ascend_moe_ping_pong_probe``."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in (
            "peer", "first", "turns", "burst", "bytes", "queues", "leads", "wrong",
        )),
        ("first_wrong", ctypes.c_uint64),
        ("nanoseconds", ctypes.c_int64),
    ]  # fmt: skip


def throw(
    library: ProbeLibrary,
    group: str,
    windows: Windows,
    nonce: int,
    peer: int,
    bursts: Sequence[Burst],
) -> list[dict[str, Any]]:
    """All of them, until one does not end well; what was seen of each launch."""
    seen: list[dict[str, Any]] = []
    first = 1
    for burst in bursts:
        for _ in range(burst.launches):
            probe = Probe(peer, first, burst.turns, burst.messages, burst.bytes)
            seen.append(_launch(library, group, windows, nonce, probe))
            if seen[-1]["status"] != 0 or seen[-1]["wrong"]:
                return seen
            first += burst.turns
    return seen


def _launch(
    library: ProbeLibrary, group: str, windows: Windows, nonce: int, probe: Probe
) -> dict[str, Any]:
    record = (ctypes.c_uint32 * BLOCK_WORDS)()
    ranks = len(windows.base)
    began = time.monotonic()
    status = library.call(
        "ascend_moe_probe_ping_pong",
        *(group.encode(), windows.rank, ranks, ctypes.c_uint64(windows.bytes)),
        *((ctypes.c_uint64 * ranks)(*windows.base), (ctypes.c_uint64 * 2)(*windows.card)),
        *(nonce, ctypes.byref(probe), record),
    )
    return {
        "status": status,
        "text": library.text() if status else "",
        "record": list(record),
        "nonce": nonce,
        "waited_s": round(time.monotonic() - began, 3),
        "limit_s": float(os.environ["ASCEND_MOE_TIMEOUT_S"]),
        **{name: getattr(probe, name) for name, _ in Probe._fields_},
    }
