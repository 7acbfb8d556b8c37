"""Deaths among CPU ranks that shrink their group and go on: ``scripts/attack survive --rounds 200`` counts.

A round is a world of ranks that dispatch and combine without pause, one transport, and one or two deaths by SIGKILL at
random moments: the second one often while the others meet because of the first. What must hold: every call returns
the oracle's bits or raises a PeerError; errors name ranks that were killed, and none else; those that are left go on
in time with the oracle's bits for those that are left; nothing is left behind.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")  # torch_npu without CANN

sys.path.insert(0, str(Path(__file__).resolve().parent))

import small_calls
import torch
import worlds
from cpu_attack import GRACE_S, LIMIT_S, WAYS, left_behind
from elastic_calls import calls_of, home_of

import ascend_moe
from ascend_moe.contract.errors import PeerError
from ascend_moe.reference import combine_world, dispatch_world
from ascend_moe.shrinking import LATER_S

PAIRS_AFTER = 6
"""Right pairs that end a round, after the last death."""


class Survivor:
    """One rank of a round."""

    def __init__(self, rank: int, ranks: int, seed: int, attributes: dict[str, Any]) -> None:
        self.rank, self.ranks, self.seed, self.attributes = rank, ranks, seed, attributes
        self.name = ascend_moe.hccl_comm_name(worlds.GROUPS["ep"], rank)
        self.dead: set[int] = set()
        self.info: Any = None
        self.learn()

    def learn(self) -> None:
        """What is right for the ranks that are left."""
        left = [rank for rank in range(self.ranks) if rank not in self.dead]
        calls = calls_of(self.ranks, left, seed=self.seed, attributes=self.attributes)
        outputs = dispatch_world(calls)
        back = home_of(calls, outputs)
        own = left.index(self.rank)
        more = {"group_ep": self.name, "elastic_info": self.info}
        self.call, self.wanted = calls[own] | more, outputs[own]
        self.back, self.sum = back[own] | more, combine_world(back)[own]

    def pair(self) -> None:
        outputs = ascend_moe.npu_moe_distribute_dispatch_v2(**self.call)
        assert small_calls.same(outputs, self.wanted), "wrong rows"
        y = ascend_moe.npu_moe_distribute_combine_v2(**self.back)
        assert y.equal(self.sum), "wrong sums"

    def recover(self, error: PeerError) -> None:
        for _ in range(2 * self.ranks):
            self.dead |= {*error.ranks}
            if self.rank in self.dead:
                raise AssertionError(f"taken for dead: {error}")
            try:
                self.info = ascend_moe.shrink(self.name, sorted(self.dead))
            except PeerError as another:
                error = another
                continue
            self.learn()
            return
        raise AssertionError(f"did not meet: {error}")


def survive(rank: int, ranks: int, seed: int, deaths: int, attributes: dict[str, Any]) -> Any:
    """Calls until so many are dead and the others have gone on; pairs, whom it took for dead, how long it took."""
    one = Survivor(rank, ranks, seed, attributes)
    made = since = 0
    slowest, began = 0.0, 0.0
    while len(one.dead) < deaths or since < PAIRS_AFTER:
        try:
            one.pair()
        except PeerError as error:
            began, since = time.monotonic(), 0
            one.recover(error)
            continue
        if not since and one.dead:
            slowest = max(slowest, time.monotonic() - began)
        made, since = made + 1, since + 1
    return made, sorted(one.dead), slowest


def attack(way: str, seed: int) -> tuple[int, float, list[str]]:
    """One round: pairs that were right, the longest way from an error to the next right pair, and what was wrong."""
    draw = random.Random(seed)
    ranks = draw.choice((3, 4, 5, 6))
    shared = draw.choice((0, 0, 2)) if ranks > 4 else 0
    attributes = {"moe_expert_num": 2 * (ranks - shared), "shared_expert_rank_num": shared}
    # Of each kind of rank one is left.
    victims = draw.sample(range(ranks), draw.choice((1, 2)))
    if shared and {0, 1} <= {*victims}:
        victims.pop()
    delays = [draw.uniform(0.0, 0.3), draw.choice((0.0, draw.uniform(0.0, 0.1)))]
    environment = WAYS[way] | {"ASCEND_MOE_TIMEOUT_S": str(LIMIT_S)}
    with worlds.world(ranks, environments=[environment]) as world:
        world.run(_served, ranks, attributes)

        def strike() -> None:
            for victim, delay in zip(victims, delays, strict=False):
                time.sleep(delay)
                os.kill(world.processes[victim].pid, signal.SIGKILL)

        striker = threading.Thread(target=strike)
        striker.start()
        outcomes = world.outcomes(survive, ranks, seed, len(victims), attributes, timeout=60)
        striker.join()
    wrong, pairs, slowest = [], 0, 0.0
    for rank, outcome in enumerate(outcomes):
        if rank in victims:
            continue
        if not isinstance(outcome, tuple):
            wrong.append(f"rank {rank} of {ranks} ended with {outcome!r}; killed: {victims}")
            continue
        made, dead, seconds = outcome
        pairs, slowest = pairs + made, max(slowest, seconds)
        if dead != sorted(victims):
            wrong.append(f"rank {rank} of {ranks} took {dead} for dead; killed: {victims}")
        # In shared memory a second death is seen at once; the store knows no deaths.
        if seconds > LIMIT_S + GRACE_S + (0.0 if way == "windows" else LIMIT_S + LATER_S):
            wrong.append(f"rank {rank} of {ranks} went on after {seconds:.1f} s")
    return pairs, slowest, wrong


def _served(rank: int, ranks: int, attributes: dict[str, Any]) -> None:
    """A group on which nothing was ever called cannot shrink. Ranks begin as late as the machine lets them."""
    torch.set_num_threads(1)
    with mock.patch.dict(os.environ, {"ASCEND_MOE_TIMEOUT_S": "60"}):
        Survivor(rank, ranks, 0, attributes).pair()


def main() -> int:
    """Prints the counts; 1 when something was not as it must be."""
    parser = argparse.ArgumentParser(
        prog="scripts/attack survive",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="of the first round (default 1)")
    given = parser.parse_args()
    before = left_behind()
    counts: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    slowest: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(given.seed, given.seed + given.rounds):
        way = [*WAYS][seed % len(WAYS)]
        pairs, seconds, found = attack(way, seed)
        wrong += [f"over {way}, round {seed}: {text}" for text in found]
        slowest[way].append(seconds)
        counts.update({"rounds": 1, "pairs": pairs, f"rounds over {way}": 1})
    after = left_behind()
    wrong += [
        f"left behind: {name} {before[name]} -> {after[name]}"
        for name in before
        if before[name] != after[name]
    ]
    milliseconds = {
        f"ms from error to right pair over {way}: median, most": [
            round(sorted(one)[len(one) // 2] * 1e3),
            round(max(one) * 1e3),
        ]
        for way, one in slowest.items()
        if one
    }
    print(json.dumps({**counts, **milliseconds, "wrong": wrong}, indent=2))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
