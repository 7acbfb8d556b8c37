"""After deaths the executor still equals the oracle, over random legal calls of those that are left, in every mode."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import worlds
from elastic_calls import calls_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_calls import Plan, combine_calls, dispatch_calls, plans, require_right

import ascend_moe
from ascend_moe.contract.errors import PeerError
from ascend_moe.reference import combine_world, dispatch_world

RANKS, LEFT, DEAD, LOCAL = 5, [0, 2, 3], [1, 4], 2
WHOLE = {"moe_expert_num": 3 * LOCAL, "shared_expert_num": 1, "shared_expert_rank_num": 2}


@pytest.fixture(scope="module", params=["windows", "distributed"])
def left(request: pytest.FixtureRequest) -> Iterator[worlds.World]:
    """Of five ranks two have died, one of each kind; the others have met."""
    environment = {"ASCEND_MOE_TIMEOUT_S": "20", "ASCEND_MOE_CPU_TRANSPORT": request.param}
    with worlds.world(RANKS, environments=[environment]) as opened:
        calls = calls_of(RANKS, range(RANKS), attributes=WHOLE)
        opened.run(worlds.dispatch, calls)
        opened.outcomes(_die, ranks=DEAD)
        errors = opened.outcomes(worlds.dispatch, calls, ranks=LEFT)
        assert all(isinstance(error, PeerError) for error in errors)
        opened.run(_shrink, ranks=LEFT)
        yield opened


def _die(rank: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _shrink(rank: int) -> None:
    ascend_moe.shrink(ascend_moe.hccl_comm_name(worlds.GROUPS["ep"], rank), DEAD)


INFO = calls_of(RANKS, LEFT, attributes=WHOLE)[0]["elastic_info"]


def lifted(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The calls of a world of three ranks as those of what is left of five."""
    found = []
    for rank, call in zip(LEFT, calls, strict=True):
        changed = {
            **WHOLE,
            "ep_world_size": RANKS,
            "ep_rank_id": rank,
            "global_bs": call["global_bs"] // len(LEFT) * RANKS,
            "elastic_info": INFO,
        }
        if call.get("scales") is not None:
            gone = torch.ones(1 + WHOLE["moe_expert_num"] - len(call["scales"]), call["x"].shape[1])
            changed["scales"] = torch.cat([call["scales"], gone])
        found.append(call | changed)
    return found


def fitting(plan: Plan) -> Plan:
    """The same for those that are left: one rank with the shared expert, two with two experts each."""
    experts = LOCAL * 2
    return replace(
        plan,
        product="A3",
        contract="cann-9.1",
        shared_experts=1,
        shared_ranks=1,
        local_experts=LOCAL,
        shared_expert_x="none",
        topk=min(plan.topk, experts),
    )


def _round_trip(rank: int, plan: Plan) -> Any:
    os.environ.update(plan.environment())
    own = LEFT.index(rank)
    calls = lifted(dispatch_calls(plan))
    call = worlds.with_groups(rank, calls[own])
    ascend_moe.npu_moe_distribute_dispatch_v2(**call)  # the next one is remembered
    output = ascend_moe.npu_moe_distribute_dispatch_v2(**call)
    options = {"product": plan.product, "contract": plan.contract}
    handles = dispatch_world(calls, **options)
    handles[own] = output
    back = worlds.with_groups(rank, _home(plan, handles, calls)[own])
    return output, ascend_moe.npu_moe_distribute_combine_v2(**back)


def _home(plan: Plan, handles: list[Any], calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [call | {"elastic_info": INFO} for call in combine_calls(plan, handles, calls)]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_equals_reference(left: worlds.World, data: st.DataObject):
    plan = fitting(data.draw(plans(len(LEFT))))
    options = {"product": plan.product, "contract": plan.contract}
    calls = lifted(dispatch_calls(plan))
    wanted = dispatch_world(calls, **options)
    sums = combine_world(_home(plan, wanted, calls), **options)
    require_right(left.run(_round_trip, plan, ranks=LEFT), wanted, sums)
