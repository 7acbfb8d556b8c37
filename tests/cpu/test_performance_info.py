"""performance_info: what the executor adds to it, and that the rest of a call does not change."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
import worlds

import ascend_moe
from ascend_moe.reference import dispatch_world

RANKS = 3
LATE_RANK, LATE_S = 1, 0.3


@pytest.fixture(scope="module", params=[{}, worlds.DISTRIBUTED], ids=["windows", "distributed"])
def world(request: pytest.FixtureRequest) -> Iterator[worlds.World]:
    with worlds.world(RANKS, environments=[request.param]) as opened:
        yield opened


def make_call(rank: int, **attributes: Any) -> dict[str, Any]:
    return {
        "x": torch.full((4, 1024), rank + 1.0).bfloat16(),
        "expert_ids": torch.tensor([[0, 1], [2, 0], [1, 2], [0, 2]]).int(),
        "ep_world_size": RANKS,
        "ep_rank_id": rank,
        "moe_expert_num": 3,
    } | attributes


def _late(rank: int, compiled: bool) -> Any:
    """Dispatch twice; one rank is late both times. The tensor has holes: the caller's own must change."""
    warm_up, info = (torch.full((2 * RANKS,), 7)[::2] for _ in range(2))
    call = worlds.with_groups(rank, make_call(rank))

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
    wanted = dispatch_world([make_call(rank) for rank in range(RANKS)])
    for rank, (outputs, waited) in enumerate(world.run(_late, compiled)):
        assert all(ours.equal(oracle) for ours, oracle in zip(outputs, wanted[rank], strict=True))
        assert waited[rank] == 0
        if rank != LATE_RANK:
            assert 1.2 * LATE_S < waited[LATE_RANK] / 1e6 < 20 * LATE_S


def test_the_reference_leaves_it_alone():
    info = torch.full((RANKS,), 7)
    dispatch_world([make_call(rank, performance_info=info) for rank in range(RANKS)])
    assert info.tolist() == [7] * RANKS


def _combine(rank: int) -> Any:
    call = worlds.with_groups(rank, make_call(rank))
    output = ascend_moe.npu_moe_distribute_dispatch_v2(**call)
    call.pop("x")
    info = torch.zeros(RANKS, dtype=torch.int64)
    if rank == LATE_RANK:
        time.sleep(LATE_S)
    ascend_moe.npu_moe_distribute_combine_v2(
        **call,
        expand_x=output[0],
        assist_info_for_combine=output[2],
        ep_send_counts=output[4],
        expert_scales=torch.ones(4, 2),
        performance_info=info,
    )
    return info


def test_combine_adds_too(world: worlds.World):
    for rank, waited in enumerate(world.run(_combine)):
        if rank != LATE_RANK:
            assert waited[LATE_RANK] / 1e6 > 0.5 * LATE_S  # on a busy machine they are late as well


def _refused(rank: int) -> Any:
    info = torch.zeros(RANKS, dtype=torch.int64)
    call = worlds.with_groups(rank, make_call(rank, moe_expert_num=3 + 3 * (rank == 2)))
    with (
        mock.patch.dict(os.environ, {"ASCEND_MOE_CONTRACT": "cann-9.1"}),
        pytest.raises(ascend_moe.ConstraintError),
    ):
        ascend_moe.npu_moe_distribute_dispatch_v2(**call, performance_info=info)
    return info


def test_a_refused_call_adds_nothing(world: worlds.World):
    for waited in world.run(_refused):
        assert waited.tolist() == [0] * RANKS
