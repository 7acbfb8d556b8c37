"""Agreement before device calls (through a store), and what a process remembers across its layers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import worlds

from ascend_moe.contract.agreement import statement
from ascend_moe.contract.errors import PeerError
from ascend_moe.contract.layers import Layers
from ascend_moe.contract.signature import with_defaults
from ascend_moe.ranks import Meeting


@pytest.fixture(scope="module")
def world() -> Iterator[worlds.World]:
    with worlds.world(3) as opened:
        yield opened


def _call(rank: int, **changes: Any) -> dict[str, Any]:
    call = {
        "x": torch.zeros(2, 1024, dtype=torch.bfloat16, device="meta"),
        "expert_ids": torch.zeros(2, 2, dtype=torch.int32, device="meta"),
        "x_active_mask": torch.ones(2, dtype=torch.bool, device="meta"),
        "group_ep": "g",
        "ep_world_size": 3,
        "ep_rank_id": rank,
        "moe_expert_num": 6,
    }
    return with_defaults("dispatch", call | changes)


def _meet(rank: int, key: str, odd: dict[str, Any], refusal: str, absent: int) -> list[str]:
    if rank == absent:
        return []
    meeting = Meeting(worlds.GROUPS["ep"], key)
    meeting.state(
        statement("dispatch", _call(rank, **odd if rank == 1 else {}), values=False),
        refusal * (rank == 1),
    )
    return [str(violation) for violation in meeting.findings("dispatch")]


def test_ranks_that_agree(world: worlds.World):
    assert world.run(_meet, "agree", {}, "", -1) == [[], [], []]


@pytest.mark.parametrize(
    ("odd", "text"),
    [
        (
            {"moe_expert_num": 9},
            "X-40 error moe_expert_num: ranks disagree: 6 on ranks 0, 2, 9 on rank 1",
        ),
        ({"ep_rank_id": 0}, "X-08 error ep_rank_id: is 0 on ranks 0-1, 2 on rank 2"),
        (
            {"comm_alg": "fullmesh_v2"},
            "X-40 error comm_alg: ranks disagree: '' on ranks 0, 2, 'fullmesh_v2' on rank 1",
        ),
    ],
)
def test_ranks_that_disagree(world: worlds.World, odd: dict[str, Any], text: str):
    for found in world.run(_meet, str(odd), odd, "", -1):
        assert len(found) == 1
        assert found[0].startswith(text)


def test_a_rank_that_refuses(world: worlds.World):
    for found in world.run(_meet, "refuse", {}, "X-10 error moe_expert_num: is 7", -1):
        assert found == ["X-10 error group_ep: rank 1 refuses the call: moe_expert_num: is 7"]


def _impatient(rank: int) -> Any:
    import os

    os.environ["ASCEND_MOE_TIMEOUT_S"] = "1"
    try:
        return _meet(rank, "absent", {}, "", 2)
    finally:
        del os.environ["ASCEND_MOE_TIMEOUT_S"]


def test_a_rank_that_does_not_come(world: worlds.World):
    started = time.monotonic()
    first, second, _ = world.outcomes(_impatient)
    assert time.monotonic() - started < 10
    for outcome in (first, second):
        assert isinstance(outcome, PeerError)
        assert outcome.ranks == (2,)
        assert "rank 2 did not arrive at its first call within 1 s" in str(outcome)


def _buffer(rank: int, calls: Any) -> Any:
    import os

    os.environ["HCCL_BUFFSIZE"] = "400" if rank == 1 else "200"
    try:
        return worlds.dispatch(rank, calls)
    finally:
        del os.environ["HCCL_BUFFSIZE"]


def test_unequal_buffers_are_refused_on_cpu_too(world: worlds.World):
    calls = [
        {
            "x": torch.zeros(2, 1024).bfloat16(),
            "expert_ids": torch.tensor([[0, 1], [2, 3]]).int(),
            "ep_world_size": 3,
            "ep_rank_id": rank,
            "moe_expert_num": 6,
        }
        for rank in range(3)
    ]
    for outcome in world.outcomes(_buffer, calls):
        (violation,) = outcome.violations
        assert violation.rule == "E-01"
        assert "200 on ranks 0, 2, 400 on rank 1 (MB)" in violation.message


def test_layers_that_are_equal_are_silent():
    seen = Layers()
    assert [seen.warnings(_call(0)) for _ in range(3)] == [[], [], []]
    assert seen.warnings(_call(0, moe_expert_num=12)) == []  # may differ between layers


def test_a_layer_that_differs_is_told_once():
    seen = Layers()
    seen.warnings(_call(0))
    (violation,) = seen.warnings(_call(0, global_bs=6))
    assert (violation.rule, violation.level, violation.param) == ("E-09", "warning", "global_bs")
    assert "is 6, an earlier call on group 'g' had 0" in violation.message
    assert seen.warnings(_call(0, global_bs=6)) == []


def test_a_second_ep_group_is_told_once():
    seen = Layers()
    seen.warnings(_call(0))
    (violation,) = seen.warnings(_call(0, group_ep="other"))
    assert (violation.rule, violation.level) == ("E-06", "warning")
    assert "'other'" in violation.message
    assert "'g'" in violation.message
    assert seen.warnings(_call(0, group_ep="other")) == []
    assert seen.warnings(_call(0)) == []


def test_group_tp_counts_only_with_tp():
    seen = Layers()
    seen.warnings(_call(0))
    assert seen.warnings(_call(0, group_tp="something")) == []
    assert [v.param for v in seen.warnings(_call(0, group_tp="something", tp_world_size=2))] == [
        "group_tp",
        "tp_world_size",
    ]
