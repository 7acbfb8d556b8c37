"""Ranks on the virtual NPU go on without others: what is left of them agrees with the oracle, all else has a name.

usage: shrink.py CASE...

Each case has processes of its own; each rank that is left prints "CASE rank R: TEXT" for each thing it was told.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import ranks
import torch
from elastic_calls import calls_of, home_of

import ascend_moe
from ascend_moe.reference import combine_world, dispatch_world

SHARED = {"shared_expert_rank_num": 2, "moe_expert_num": 4}
DEATHS = {"deaths": [0, 2], "together": [1, 3]}
"""By case, the ranks that kill themselves."""


class Rank:
    """One rank of a group, and who is left in its view."""

    def __init__(
        self, rank: int, case: str, attributes: dict[str, Any] | None = None, *, size: int = 4
    ) -> None:
        self.rank, self.case, self.attributes, self.size = rank, case, attributes, size
        self.name = ranks.GROUPS["ep"]
        self.left = list(range(size))
        self.info: torch.Tensor | None = None

    def prepare(self, seed: int = 1) -> None:
        """The calls of those that are left, and what is right."""
        calls = calls_of(self.size, self.left, seed=seed, attributes=self.attributes)
        outputs = dispatch_world(calls)
        back, own = home_of(calls, outputs), self.left.index(self.rank)
        self.wanted, self.sum = outputs[own], combine_world(back)[own]
        more = {"elastic_info": self.info}
        self.call = ranks.on_npu(calls[own] | more)
        self.back = ranks.on_npu(back[own] | more)

    def layer(self) -> tuple[Any, torch.Tensor]:
        rows, _, assist, nums, counts, *_ = ascend_moe.npu_moe_distribute_dispatch_v2(**self.call)
        home = {"expand_x": rows, "assist_info_for_combine": assist, "ep_send_counts": counts}
        return (rows, nums), ascend_moe.npu_moe_distribute_combine_v2(**self.back | home)

    def serve(self, seeds: Sequence[int] = (1, 2)) -> None:
        """Round trips with the oracle's bits."""
        for seed in seeds:
            self.prepare(seed)
            (rows, nums), y = self.layer()
            ascend_moe.confirm(self.name)
            experts = 1 if self.holds_shared() else 2
            assert nums[:experts].cpu().equal(self.wanted[3][:experts]), "wrong counts"
            received = int(self.wanted[3][:experts].sum())
            assert rows[:received].cpu().equal(self.wanted[0][:received]), "wrong rows"
            assert y.cpu().equal(self.sum), "wrong sums"

    def holds_shared(self) -> bool:
        shared = (self.attributes or {}).get("shared_expert_rank_num", 0)
        return self.left.index(self.rank) < sum(rank < shared for rank in self.left)

    def fail(self) -> None:
        """A layer that cannot come to its end, up to where its results would be used."""
        self.prepare()
        self.layer()
        ascend_moe.confirm(self.name)

    def error(self, function: Callable[[], object]) -> str:
        try:
            function()
            torch.npu.synchronize()
        except (RuntimeError, ValueError) as error:
            named = f" {error.ranks}" if isinstance(error, ascend_moe.PeerError) else ""
            return " ".join(f"{type(error).__name__}{named}: {error}".split())
        return "no error"

    def tell(self, text: str) -> None:
        print(f"{self.case} rank {self.rank}: {text}\n", end="", flush=True)

    def meet(self, dead: Sequence[int]) -> None:
        """As often as a view of before is still there that differs."""
        for _ in range(self.size):
            with suppress(ascend_moe.PeerError):
                return self.shrink(dead)
        raise AssertionError("views differ for ever")

    def shrink(self, dead: Sequence[int], timeout_s: float | None = None) -> None:
        self.info = ascend_moe.shrink(self.name, dead, timeout_s=timeout_s)
        assert self.info.device.type == "npu"
        self.left = [rank for rank in self.left if rank not in dead]
        wanted = calls_of(self.size, self.left, attributes=self.attributes)[0]["elastic_info"]
        assert self.info.cpu().equal(wanted)


def deaths(rank: int, case: str) -> None:
    """Two deaths, one after the other: the first of them holds whatever one rank alone holds. Graphs of before end."""
    one = Rank(rank, case)
    one.serve()
    graph = torch.npu.NPUGraph()
    with torch.npu.graph(graph):
        one.layer()
    graph.replay()
    torch.npu.synchronize()
    graphs = [graph]
    for victim in DEATHS[case]:
        if rank == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        one.tell(f"death: {one.error(one.fail)}")
        missing = ascend_moe.missing_ranks(one.name)
        one.tell(f"missing: {missing}")
        one.shrink(missing)
        one.serve()
        one.tell(f"old graphs: {[one.error(old.replay) for old in graphs]}")
        one.prepare()
        one.call["elastic_info"] = None
        one.tell(f"as before: {one.error(one.layer)}")
        one.serve()  # and none of that has harmed the group
        graphs.append(torch.npu.NPUGraph())
        with torch.npu.graph(graphs[-1]):
            _, y = one.layer()
        graphs[-1].replay()
        assert y.cpu().equal(one.sum)
    one.tell("served")


def together(rank: int, case: str) -> None:
    """Two deaths at once, with shared experts. Then a failure without a death: the same ranks go on."""
    one = Rank(rank, case, SHARED)
    one.serve()
    if rank in DEATHS[case]:
        os.kill(os.getpid(), signal.SIGKILL)
    one.tell(f"death: {one.error(one.fail)}")
    one.shrink(ascend_moe.missing_ranks(one.name))
    one.serve()
    one.prepare()
    if rank == 0:
        one.call |= {"x": torch.zeros(4, 2048).bfloat16().npu()}
    one.tell(f"mistake: {one.error(lambda: (one.layer(), ascend_moe.confirm(one.name)))}")
    missing = ascend_moe.missing_ranks(one.name)
    one.tell(f"missing: {missing}")
    one.shrink(missing)
    one.serve()
    one.tell("served")


def views(rank: int, case: str) -> None:
    """Nobody has died. Views that differ are named; a rank that is left out hears of it, and reaches nobody."""
    one = Rank(rank, case)
    one.serve()
    one.tell(f"itself: {one.error(lambda: one.shrink([rank]))}")
    one.tell(f"nobody: {one.error(lambda: one.shrink([]))}")
    one.tell(f"no group: {one.error(lambda: ascend_moe.shrink('no such group', [0]))}")
    one.tell(f"differ: {one.error(lambda: one.shrink([(rank + 1) % 4]))}")
    one.serve()
    if rank != 3:
        one.meet([3])
        one.serve()
    else:
        time.sleep(2)  # the others have gone on meanwhile
        one.tell(f"left out: {one.error(one.layer)}")
        one.tell(f"later: {one.error(one.layer)}")
    torch.distributed.barrier()
    if rank != 3:
        one.serve()
        late = (lambda: one.shrink([2], timeout_s=0.5)) if rank == 0 else (lambda: None)
        one.tell(f"alone: {one.error(late)}")
    torch.distributed.barrier()


def refused(rank: int, case: str) -> None:
    """Groups that cannot go on without ranks: whose kernels are not told of it."""
    one = Rank(rank, case, size=2)
    one.tell(f"unused: {one.error(lambda: one.shrink([0 if rank else 1]))}")
    one.prepare()
    ascend_moe.npu_moe_distribute_dispatch_v2(**one.call)
    one.tell(f"served: {one.error(lambda: one.shrink([0 if rank else 1]))}")


def check(rank: int, case: str) -> None:
    globals()[case](rank, case)
    if case in DEATHS:
        os._exit(0)  # groups of dead ranks cannot be closed in good order


if __name__ == "__main__":
    for name in sys.argv[1:]:
        size = 2 if name == "refused" else 4
        wanted = [-9 if rank in DEATHS.get(name, ()) else 0 for rank in range(size)]
        try:
            ranks.run(size, check, name, timeout=100)
        except SystemExit as end:
            if end.code != f"exit codes of the ranks: {wanted}":
                raise
