"""After deaths the executor still equals the oracle, over random legal calls of those that are left, in every mode."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import worlds
from elastic_calls import calls_of
from elastic_plans import DEAD, LEFT, RANKS, WHOLE, fitting, home, lifted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_calls import Plan, dispatch_calls, plans, require_right

import ascend_moe
from ascend_moe.contract.errors import PeerError
from ascend_moe.reference import combine_world, dispatch_world


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
    back = worlds.with_groups(rank, home(plan, handles, calls)[own])
    return output, ascend_moe.npu_moe_distribute_combine_v2(**back)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_equals_reference(left: worlds.World, data: st.DataObject):
    plan = fitting(data.draw(plans(len(LEFT))))
    options = {"product": plan.product, "contract": plan.contract}
    calls = lifted(dispatch_calls(plan))
    wanted = dispatch_world(calls, **options)
    sums = combine_world(home(plan, wanted, calls), **options)
    require_right(left.run(_round_trip, plan, ranks=LEFT), wanted, sums)
