"""Hierarchy in 16 processes: equal to the oracle bit for bit, also with servers smaller than the products have."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

import pytest
import torch
import worlds
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from random_calls import Plan, combine_calls, dispatch_calls, hierarchy_plans, require_right
from small_calls import homeward

from ascend_moe import ConstraintError
from ascend_moe.contract.servers import Servers, servers_of
from ascend_moe.reference import combine_world, dispatch_world

RANKS = 16
ON_A2 = {"ASCEND_MOE_PRODUCT": "A2"}


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {}


def cut_in_servers(module: str, ranks_per_server: int | None) -> Any:
    """Within, ``module`` sees servers of so many ranks; None: those of the product."""

    def smaller(path: str, **where: str) -> Servers | None:
        real = servers_of(path, **where)
        return real and Servers(
            ranks_per_server or real.ranks_per_server, real.sums_by_expert, real.ignores_mask
        )

    return mock.patch(f"ascend_moe.{module}.servers_of", smaller)


@settings(
    max_examples=16,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # shrinking 16 processes takes longer than reading
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(plan=hierarchy_plans(RANKS), ranks_per_server=st.sampled_from([None, 2, 4]))
def test_equals_reference(world: worlds.World, plan: Plan, ranks_per_server: int | None):
    with (
        mock.patch.dict(os.environ, plan.environment()),
        cut_in_servers("reference.calls", ranks_per_server),
    ):
        calls = dispatch_calls(plan)
        wanted = dispatch_world(calls)
        wanted_combined = combine_world(combine_calls(plan, wanted, calls))
    require_right(world.run(_round_trip, plan, ranks_per_server), wanted, wanted_combined)


def _round_trip(rank: int, plan: Plan, ranks_per_server: int | None) -> Any:
    """Ranks make their own tensors from the plan: nothing but the plan goes through the pipe."""
    with (
        mock.patch.dict(os.environ, plan.environment()),
        cut_in_servers("cpu.operators.session", ranks_per_server),
    ):
        calls = dispatch_calls(plan)
        output = worlds.dispatch(rank, calls)
        back = combine_calls(plan, [output] * RANKS, calls)  # outputs are of equal size here
        return output, worlds.combine(rank, back)


def simple_calls(**attributes: Any) -> list[dict[str, Any]]:
    """One token per rank, 16 experts, A2."""
    return [
        {
            "x": torch.ones(1, 32).bfloat16(),
            "expert_ids": torch.tensor([[8, 1, rank if rank not in (8, 1) else 0]]).int(),
            "expert_scales": torch.tensor([[0.25, 0.5, 0.125]]),
            "ep_world_size": RANKS,
            "ep_rank_id": rank,
            "moe_expert_num": 16,
        }
        | attributes
        for rank in range(RANKS)
    ]


def test_variables_that_differ_are_named(world: worlds.World):
    """On A2 two variables select the path: a rank without them must not meet the others in the exchange."""
    outcomes = world.outcomes(_rank_3_without_variables, simple_calls())
    for outcome in outcomes:
        assert isinstance(outcome, ConstraintError)
        (violation,) = outcome.violations
        assert (violation.rule, violation.param) == ("X-40", "comm_alg")
        assert "'hierarchy' on ranks 0-2, 4-15, 'fullmesh' on rank 3" in violation.message
        assert "HCCL_INTRA_PCIE_ENABLE" in violation.message


def _rank_3_without_variables(rank: int, calls: list[dict[str, Any]]) -> Any:
    of_path = {"HCCL_INTRA_PCIE_ENABLE": str(int(rank != 3)), "HCCL_INTRA_ROCE_ENABLE": "0"}
    return worlds.under(rank, ON_A2 | of_path, worlds.dispatch, calls)


def test_a_foreign_handle_is_named_and_the_group_survives(world: worlds.World):
    calls = simple_calls(comm_alg="hierarchy")
    outcomes = world.outcomes(worlds.under, ON_A2, _combine_with_a_foreign_handle, calls)
    for rank, outcome in enumerate(outcomes):
        if rank == 0:
            assert isinstance(outcome, ConstraintError)
            assert {violation.rule for violation in outcome.violations} == {"E-08"}
            assert "no rank sent a row for token 0, k 0 of rank 0" in str(outcome)
            assert "two rows claim token 0, k 1 of rank 0" in str(outcome)
        else:
            assert outcome.shape == (1, 32)
    dispatched = world.run(worlds.under, ON_A2, worlds.dispatch, calls)
    assert all(output[0].any() for output in dispatched)


def _combine_with_a_foreign_handle(rank: int, calls: list[dict[str, Any]]) -> Any:
    """Rank 0 is expert 0, whose first row belongs to token 0 of rank 0, place 0; its handle says place 1."""
    output = worlds.dispatch(rank, calls)
    if rank == 0:
        assert output[4][RANKS : RANKS + 2].tolist() == [0, 0]
        output[4][RANKS + 1] = 1
    call = homeward(calls, [output] * RANKS)[rank]
    call |= {"comm_alg": "hierarchy", "expand_scales": output[6]}
    return worlds.combine(rank, [call] * RANKS)
