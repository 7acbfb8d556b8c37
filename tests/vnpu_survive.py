"""Deaths among ranks on the virtual NPU that shrink their group and go on: ``scripts/attack survive --npu`` counts.

A round is a world of ranks that dispatch and combine without pause, with our kernels, and one or two deaths by SIGKILL
at random moments: the second one often while the others meet because of the first. What must hold: results that were
confirmed are the oracle's; only ranks that were killed are taken for dead; those that are left go on in time; nothing
is left behind.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent / "vnpu" / "programs"))

import ranks
import torch
import torch.multiprocessing as mp
from shrink import Rank

import ascend_moe

LIMIT_S, GRACE_S = 4, 8.0
"""The time limit of kernels; the next right pair must come within twice that and GRACE_S."""
PIDS: list[int] = []
"""Of all ranks: other programs of the machine have shared memory, too."""
PAIRS_AFTER = 4
"""Right pairs that end a round, after the last death."""
ENVIRONMENT = {
    "ASCEND_MOE_KERNELS": "require",
    "ASCEND_MOE_TIMEOUT_S": str(LIMIT_S),
    "HCCL_BUFFSIZE": "8",
}


def recover(one: Rank, dead: set[int]) -> None:
    dead |= {*ascend_moe.missing_ranks(one.name)}
    for _ in range(2 * one.size):
        if one.rank in dead:
            raise AssertionError("taken for dead")
        try:
            return one.shrink(sorted(dead))
        except ascend_moe.PeerError as error:
            dead |= {*error.ranks}
    raise AssertionError("did not meet")


def survive(rank: int, size: int, seed: int, deaths: int, attributes: Any, pipe: Connection) -> Any:
    """Serves until so many are dead and the others have gone on."""
    one, dead = Rank(rank, "attack", attributes, size=size), set[int]()
    one.serve([seed])
    pipe.send("serves")
    pairs = since = alarms = 0
    slowest = began = 0.0
    while len(dead) < deaths or since < PAIRS_AFTER:
        try:
            one.serve([seed])
        except RuntimeError:
            began, since, before = time.monotonic(), 0, len(dead)
            recover(one, dead)
            alarms += len(dead) == before
            continue
        if not since and began:
            slowest = max(slowest, time.monotonic() - began)
        pairs, since = pairs + 1, since + 1
    pipe.send((pairs, sorted(dead), slowest, alarms))
    os._exit(0)


def attack(seed: int) -> tuple[int, int, float, list[str]]:
    """One round: pairs that were right, errors without a death, the longest way to a right pair, what was wrong."""
    draw = random.Random(seed)
    size = draw.choice((3, 4, 5))
    shared = draw.choice((0, 0, 2)) if size > 4 else 0
    attributes = {"moe_expert_num": 2 * (size - shared), "shared_expert_rank_num": shared}
    victims = draw.sample(range(size), draw.choice((1, 2)))
    if shared and {0, 1} <= {*victims}:
        victims.pop()
    delays = [draw.uniform(0.0, 0.5), draw.choice((0.0, draw.uniform(0.0, 0.3)))]
    context, processes, pipes = mp.get_context("fork"), [], []
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, ENVIRONMENT):
        store = str(Path(folder) / "store")
        for rank in range(size):
            ours, theirs = context.Pipe()
            given = (size, seed, len(victims), attributes, theirs)
            process = context.Process(
                target=ranks._serve, args=(rank, size, 1, store, survive, given)
            )
            process.start()
            PIDS.append(process.pid)
            theirs.close()
            processes.append(process)
            pipes.append(ours)
        try:
            return _strike(processes, pipes, victims, delays)
        finally:
            for process in processes:
                process.kill()
                process.join()


def _strike(
    processes: list[Any], pipes: list[Connection], victims: list[int], delays: list[float]
) -> tuple[int, int, float, list[str]]:
    for pipe in pipes:
        if not pipe.poll(90) or pipe.recv() != "serves":
            return 0, 0, 0.0, ["a rank did not begin to serve"]
    for victim, delay in zip(victims, delays, strict=False):
        time.sleep(delay)
        os.kill(processes[victim].pid, signal.SIGKILL)
    wrong, pairs, alarms, slowest = [], 0, 0, 0.0
    waiting = {pipe: rank for rank, pipe in enumerate(pipes) if rank not in victims}
    deadline = time.monotonic() + 90
    while waiting:
        ready = wait(list(waiting), max(deadline - time.monotonic(), 0.0))
        if not ready:
            return pairs, alarms, slowest, [*wrong, f"ranks {[*waiting.values()]} hang"]
        for pipe in ready:
            rank = waiting.pop(pipe)
            try:
                made, dead, seconds, false = pipe.recv()
            except EOFError:
                wrong.append(f"rank {rank} of {len(pipes)} ended; killed: {victims}")
                continue
            pairs, alarms, slowest = pairs + made, alarms + false, max(slowest, seconds)
            if dead != sorted(victims):
                wrong.append(f"rank {rank} took {dead} for dead; killed: {victims}")
            if seconds > 2 * LIMIT_S + GRACE_S:
                wrong.append(f"rank {rank} went on after {seconds:.1f} s")
    return pairs, alarms, slowest, wrong


def main() -> int:
    """Prints the counts; 1 when something was not as it must be."""
    parser = argparse.ArgumentParser(prog="scripts/attack survive --npu", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="of the first round (default 1)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    counts: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    slowest: list[float] = []
    for seed in range(given.seed, given.seed + given.rounds):
        pairs, alarms, seconds, found = attack(seed)
        wrong += [f"round {seed}: {text}" for text in found]
        slowest.append(seconds)
        counts.update({"rounds": 1, "pairs": pairs, "errors without a death": alarms})
        print(seed, pairs, f"{seconds:.1f} s", found or "", file=sys.stderr, flush=True)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    ours = re.compile(rf"(?<!\d)({'|'.join(map(str, PIDS))})(?!\d)")
    left = [one.name for one in Path("/dev/shm").iterdir() if ours.search(one.name)]
    wrong += [f"left behind: {one}" for one in (*children, *left)]
    median = sorted(slowest)[len(slowest) // 2]
    way = {
        "ms from error to right pair: median, most": [
            round(median * 1e3),
            round(max(slowest) * 1e3),
        ]
    }
    print(json.dumps({**counts, **way, "wrong": wrong}, indent=2))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
