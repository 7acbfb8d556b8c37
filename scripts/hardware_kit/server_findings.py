"""What the first steps between two servers can find, and the judgement of what the ranks saw (``findings``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ADVICE = {
    "no-queues": "Send the text. HCCL makes no queues that a vector core may post to, or its structure is not the "
    "known one: the text names what is missing. CANN's own kernels run: --phases stock.",
    "ping-pong-fails": "Send the text and the last 50 lines of ~/ascend/log: no message was lost, the launch failed.",
    "message-lost": "Send this. No tag came within the time limit: is the doorbell mapped for a kernel that is "
    "launched directly (driver 25.2 or later), is the link of the named direction up (hccn_tool -i N -link -g)?",
    "queue-full": "Send this: the tail of the queue does not move, or depth and owner bit are not what we read.",
    "message-differs": "Send this: the tag came, but not (all of) the messages before it. Do not use several servers.",
    "silent-rank-not-noticed": "Send this: a kernel ended well although the rank opposite never sent.",
    "silent-rank-misnamed": "Send this: the record names another rank or another link than that of the silent one.",
}

# kernels/device/abi.h: words of an error block, and reasons.
EPOCH, PEER, REASON, LINK = 1, 2, 5, 6
FULL_QUEUE, NETWORK = 4, 1
LATE_S = 10.0

Seen = Mapping[int, Mapping[str, Any]]
Found = Iterator[tuple[str, str]]


def judge(step: str, seen: Seen, world: int) -> Found:
    """Finding and evidence, the first one counts."""
    for rank in sorted(seen):
        for key, finding in (("no_communicator", "no-communicator"), ("no_windows", "no-queues")):
            if key in seen[rank]:
                yield finding, f"rank {rank}: {seen[rank][key]}"
    if step == "silent":
        yield from _silent(seen, world)
        return
    for rank in sorted(seen):
        yield from _full_or_failed(rank, _last(seen, rank))
    for rank in sorted(seen):
        yield from _lost(seen, rank, (rank + world // 2) % world)
    for rank in sorted(seen):
        yield from _differs(rank, _last(seen, rank))


def _last(seen: Seen, rank: int) -> Mapping[str, Any]:
    """What a rank saw last; nothing of a rank that left nothing."""
    runs = seen.get(rank, {}).get("runs") or [{}]
    last: Mapping[str, Any] = runs[-1]
    return last


def _gave_up(run: Mapping[str, Any]) -> bool:
    return bool(run) and run["record"][0] == run["nonce"]


def _full_or_failed(rank: int, run: Mapping[str, Any]) -> Found:
    if run and run["status"] != 0 and not _gave_up(run):
        yield "ping-pong-fails", f"rank {rank}: status {run['status']}: {run['text']}"
    if _gave_up(run) and run["record"][REASON] == FULL_QUEUE:
        yield "queue-full", f"rank {rank} to rank {run['peer']}: {run['text']}"


def _lost(seen: Seen, rank: int, peer: int) -> Found:
    """Which way: who waits for a turn that the other has sent is at the end that nothing reached."""
    leader, other = min(rank, peer), max(rank, peer)
    waits = {
        one: run["record"][EPOCH] for one in (leader, other) if _gave_up(run := _last(seen, one))
    }
    if rank not in waits:
        return
    if leader in waits and (other not in waits or waits[other] > waits[leader]):
        way, turn = f"from rank {other} to rank {leader}", waits[leader]
    else:
        way, turn = f"from rank {leader} to rank {other}", waits[other]
    run = _last(seen, rank)
    what = f"{run['burst']} messages of {run['bytes']} bytes and a tag"
    yield "message-lost", f"{way}, in turn {turn} of {what}: {run['text']}"


def _differs(rank: int, run: Mapping[str, Any]) -> Found:
    if run.get("wrong"):
        text = f"rank {rank}: {run['wrong']} words of what came back from rank {run['peer']} differ, the first is "
        yield "message-differs", f"{text}number {run['first_wrong']}"


def _silent(seen: Seen, world: int) -> Found:
    absent = world - 1
    rank = absent - world // 2
    run = _last(seen, rank)
    if not run:
        return
    text = f"rank {rank}: after {run['waited_s']:g} s (limit {run['limit_s']:g} s)"
    if not _gave_up(run):
        yield "silent-rank-not-noticed", f"{text}, status {run['status']}: {run['text']}"
    if (run["record"][PEER] - 1, run["record"][LINK]) != (absent, NETWORK):
        yield "silent-rank-misnamed", f"{text}: {run['text']}"
    if run["waited_s"] > run["limit_s"] + LATE_S:
        yield "gives-up-late", f"{text}: {run['text']}"
    for other in sorted(seen.keys() - {rank, absent}):
        yield from _full_or_failed(other, _last(seen, other))
        yield from _lost(seen, other, (other + world // 2) % world)


def evidence(step: str, seen: Seen) -> str:
    """All is well."""
    first = seen[0]
    if step == "queues":
        return f"{len(seen)} ranks, windows of {first['window_bytes'] >> 20} MB and queues by {first['provider']}"
    runs = first["runs"]
    if step == "silent":
        rank = len(seen) // 2 - 1
        return f"after {_last(seen, rank)['waited_s']:g} s: {_last(seen, rank)['text']}"
    posts = sum(run["turns"] * (run["burst"] + 1) for run in runs)
    sizes = ", ".join(str(size) for size in sorted({run["bytes"] for run in runs}))
    return (
        f"{len(seen)} ranks, queues to each: {runs[-1]['queues']}; {posts} posts each way, messages of {sizes} bytes,"
        " none lost, all right"
    )
