"""performance_info: what the executor adds to it, and that the rest of a call does not change."""

from __future__ import annotations

import time
from typing import Any

import pytest
import small_calls
import torch
import worlds

import ascend_moe
from ascend_moe.reference import dispatch_world

RANKS = 3
LATE_RANK, LATE_S = 1, 0.3


def _late(rank: int, compiled: bool) -> Any:
    """Dispatch twice; one rank is late both times. The tensor has holes: the caller's own must change."""
    warm_up, info = (torch.full((2 * RANKS,), 7)[::2] for _ in range(2))
    call = worlds.with_groups(rank, small_calls.make_calls(RANKS)[rank])

    def dispatch(x: torch.Tensor, performance_info: torch.Tensor) -> Any:
        return ascend_moe.npu_moe_distribute_dispatch_v2(
            **{**call, "x": x}, performance_info=performance_info
        )

    function = (
        torch.compile(dispatch, fullgraph=True, backend="aot_eager") if compiled else dispatch
    )
    function(call["x"], warm_up)
    before = info.clone()
    for _ in range(2):
        if rank == LATE_RANK:
            time.sleep(LATE_S)
        outputs = function(call["x"], info)
    return outputs, info - before


@pytest.mark.parametrize("compiled", [False, True])
def test_microseconds_waited_for_each_rank_are_added(world: worlds.World, compiled: bool):
    wanted = dispatch_world(small_calls.make_calls(RANKS))
    for rank, (outputs, waited) in enumerate(world.run(_late, compiled)):
        assert small_calls.same(outputs, wanted[rank])
        assert waited[rank] == 0
        if rank != LATE_RANK:
            assert 1.2 * LATE_S < waited[LATE_RANK] / 1e6 < 20 * LATE_S


def test_the_reference_leaves_it_alone():
    info = torch.full((RANKS,), 7)
    dispatch_world(small_calls.make_calls(RANKS, performance_info=info))
    assert info.tolist() == [7] * RANKS


def _combine(rank: int) -> Any:
    calls = small_calls.make_calls(RANKS)
    back = small_calls.homeward(calls, [worlds.dispatch(rank, calls)] * RANKS)
    info = torch.zeros(RANKS, dtype=torch.int64)
    if rank == LATE_RANK:
        time.sleep(LATE_S)
    worlds.combine(rank, [call | {"performance_info": info} for call in back])
    return info


def test_combine_adds_too(world: worlds.World):
    for rank, waited in enumerate(world.run(_combine)):
        if rank != LATE_RANK:
            assert waited[LATE_RANK] / 1e6 > 0.5 * LATE_S  # on a busy machine they are late as well


def _refused(rank: int) -> Any:
    info = torch.zeros(RANKS, dtype=torch.int64)
    calls = small_calls.make_calls(RANKS, performance_info=info)
    calls[2]["moe_expert_num"] = 9
    with pytest.raises(ascend_moe.ConstraintError):
        worlds.dispatch(rank, calls)
    return info


def test_a_refused_call_adds_nothing(world: worlds.World):
    for waited in world.run(worlds.under, {"ASCEND_MOE_CONTRACT": "cann-9.1"}, _refused):
        assert waited.tolist() == [0] * RANKS
