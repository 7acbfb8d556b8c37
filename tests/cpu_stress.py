"""Random orders of calls, for as long as one likes: ``python -m tests.cpu_stress --seconds 300`` from the root.

All ranks draw the same sequence: dispatch or combine, on one of two groups, in a random mode, with other ids and often
other sizes each time; several dispatches in a row, several combines on one handle. Ranks differ in speed, and with odd
seeds all areas have one half. Outputs are kept for a while, and must not have changed when they are looked at again.
Everything is compared with the oracle.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")  # torch_npu without CANN

import torch
import torch.distributed as dist
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))

import worlds
from random_calls import Plan, combine_calls, dispatch_calls

import ascend_moe
from ascend_moe.contract.errors import ConstraintWarning
from ascend_moe.cpu.windows import areas
from ascend_moe.reference import combine_world, dispatch_world

KEPT = 3
"""Handles of each group that later combines may use."""
TIME_LIMIT_S = 60.0


@dataclass
class Handle:
    """A dispatch that was made: the calls of all ranks, and what this rank got."""

    plan: Plan
    calls: list[dict[str, Any]]
    wanted: list[Any]
    own: tuple[Tensor, ...]
    copies: list[Tensor]

    def is_unchanged(self) -> bool:
        return all(one.equal(copy) for one, copy in zip(self.own, self.copies, strict=True))


@dataclass
class Group:
    """A group that this rank is a member of, or not (then it only draws along)."""

    ranks: list[int]
    group: Any
    handles: list[Handle | None] = field(default_factory=list)


def stress(rank: int, size: int, seconds: float, seed: int) -> int:
    """On every rank of a world. Returns the number of calls; raises AssertionError at the first wrong one."""
    warnings.simplefilter("ignore", ConstraintWarning)
    if seed % 2:
        areas.TWO_HALVES_UP_TO = 0  # all areas as large ones: one half, now and then two barriers
    draw = random.Random(seed)
    own_pace = random.Random(seed * 1000 + rank)
    members = [list(range(size)), list(range(min(size, 2)))]
    groups = [Group(ranks, dist.new_group(ranks)) for ranks in members]
    made, end = 0, time.monotonic() + seconds
    going = torch.ones(1)
    while True:
        if made % 16 == 0:  # all ranks end after the same call
            going[0] = time.monotonic() < end
            dist.all_reduce(going, dist.ReduceOp.MIN)
            if not going:
                return made
        made += 1
        group = draw.choice(groups)
        dispatches = not group.handles or draw.random() < 0.5
        plan, which, seed_of_call = _plan(draw, len(group.ranks)), draw.random(), draw.random()
        if draw.random() < 0.6:  # a kind of call that is remembered, with other ids
            plan = usual_plan(len(group.ranks), plan.seed)
        if own_pace.random() < 0.1:
            time.sleep(own_pace.random() * 0.01)
        if rank not in group.ranks:
            if dispatches:
                group.handles = [*group.handles, None][-KEPT:]
            continue
        if dispatches:
            handle = _dispatch(rank, group, plan)
            for old in group.handles:
                assert old is None or old.is_unchanged(), "outputs changed while they were kept"
            group.handles = [*group.handles, handle][-KEPT:]
        else:
            handle = group.handles[int(which * len(group.handles))]
            _combine(rank, group, handle, seed_of_call)


def _plan(draw: random.Random, ranks: int) -> Plan:
    shared = draw.choice([0, 0, 1]) if ranks > 2 else 0
    local = draw.choice([1, 2, 4])
    experts = local * (ranks - shared)
    max_bs = draw.choice([1, 3, 8, 8, 8, 40])
    uneven = draw.random() < 0.2
    sizes = tuple(draw.randint(1, max_bs) if uneven else max_bs for _ in range(ranks))
    quant = draw.choice([0, 0, 2])
    return Plan(
        product="A3",
        contract="cann-8.2",
        ep=ranks,
        tp=1,
        shared_experts=shared,
        shared_ranks=shared,
        local_experts=local,
        batch_sizes=sizes,
        hidden=draw.choice([1024, 1024, 1027, 4096]),
        topk=draw.randint(1, min(4, experts)),
        dtype=draw.choice(["bfloat16", "float16"]),
        quant_mode=quant,
        smooth=quant == 2 and draw.random() < 0.5,
        mask=draw.choice(["none", "none", "1d", "2d"]) if len(set(sizes)) == 1 else "none",
        token_nums_type=draw.choice([0, 1]),
        expert_scales=draw.random() < 0.5,
        shared_expert_x="2d" if not shared and draw.random() < 0.3 else "none",
        comm_quant_mode=draw.choice([0, 0, 0, 2]),
        special=(0, 0, 0),
        skewed=draw.random() < 0.2,
        strided=False,
        seed=draw.randint(0, 2**31),
    )


def usual_plan(ranks: int, seed: int) -> Plan:
    """One of two kinds, with ids of its own."""
    sizes = (8, 3)[seed % 3 == 0]
    kind = _plan(random.Random(ranks + sizes), ranks)
    return replace(kind, batch_sizes=(sizes,) * ranks, mask="none", comm_quant_mode=0, seed=seed)


def _dispatch(rank: int, group: Group, plan: Plan) -> Handle:
    calls = dispatch_calls(plan)
    wanted = dispatch_world(calls)
    here = group.ranks.index(rank)
    name = ascend_moe.hccl_comm_name(group.group, rank)
    own = ascend_moe.npu_moe_distribute_dispatch_v2(**calls[here], group_ep=name)
    for label, one, oracle in zip(wanted[here]._fields, own, wanted[here], strict=True):
        assert one.equal(oracle), f"rank {rank}: {label} of {plan}"
    return Handle(plan, calls, wanted, own, [one.clone() for one in own])


def _combine(rank: int, group: Group, handle: Handle, seed: float) -> None:
    here = group.ranks.index(rank)
    calls = combine_calls(handle.plan, handle.wanted, handle.calls)
    noise = torch.Generator().manual_seed(int(seed * 2**31))
    for call in calls:  # other expert outputs each time, and other weights
        call["expand_x"] = torch.randn(call["expand_x"].shape, generator=noise).to(
            call["expand_x"].dtype
        )
        call["expert_scales"] = torch.rand(call["expert_scales"].shape, generator=noise)
    wanted = combine_world(calls)[here]
    name = ascend_moe.hccl_comm_name(group.group, rank)
    output = ascend_moe.npu_moe_distribute_combine_v2(**calls[here], group_ep=name)
    assert output.equal(wanted), f"rank {rank}: combine of {handle.plan}"


TRANSPORTS: dict[str, dict[str, str]] = {"windows": {}, "distributed": worlds.DISTRIBUTED}


def run(transport: str, ranks: int, seconds: float, seed: int) -> int:
    """Calls that were made, all right."""
    with worlds.world(ranks, environments=[TRANSPORTS[transport]]) as world:
        return world.run(stress, ranks, seconds, seed, timeout=seconds + TIME_LIMIT_S)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="per transport")
    parser.add_argument("--transports", nargs="+", choices=TRANSPORTS, default=list(TRANSPORTS))
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    ascend_moe.register()
    torch.set_num_threads(1)
    for transport in options.transports:
        made = run(transport, options.ranks, options.seconds, options.seed)
        print(f"{transport}: {made} calls on {options.ranks} ranks, all equal to the oracle")


if __name__ == "__main__":
    main()
