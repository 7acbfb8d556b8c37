"""Hierarchy in 16 processes: equal to the oracle bit for bit, also with servers smaller than the products have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
import worlds
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from random_calls import Plan, combine_calls, dispatch_calls, hierarchy_plans

from ascend_moe import ConstraintError
from ascend_moe.contract.servers import Servers, servers_of
from ascend_moe.reference import combine_world, dispatch_world

RANKS = 16


@pytest.fixture(scope="module")
def world() -> Iterator[worlds.World]:
    with worlds.world(RANKS) as opened:
        yield opened


def cut_in_servers(module: str, ranks_per_server: int | None) -> Any:
    """Within, ``module`` sees servers of so many ranks; None: those of the product."""

    def smaller(path: str, **where: str) -> Servers | None:
        real = servers_of(path, **where)
        return real and Servers(ranks_per_server or real.ranks_per_server, real.sums_by_expert)

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
    for rank, (output, combined) in enumerate(world.run(_round_trip, plan, ranks_per_server)):
        for name, ours, oracle in zip(wanted[0]._fields, output, wanted[rank], strict=True):
            assert ours.shape == oracle.shape, f"rank {rank} {name}"
            assert ours.dtype == oracle.dtype, f"rank {rank} {name}"
            assert ours.equal(oracle), f"rank {rank} {name}"
        assert combined.dtype == wanted_combined[rank].dtype
        assert combined.equal(wanted_combined[rank]), f"rank {rank} combine"


def _round_trip(rank: int, plan: Plan, ranks_per_server: int | None) -> Any:
    """Ranks make their own tensors from the plan: nothing but the plan goes through the pipe."""
    with (
        mock.patch.dict(os.environ, plan.environment()),
        cut_in_servers("cpu.operators.session", ranks_per_server),
    ):
        calls = dispatch_calls(plan)
        output = worlds.dispatch(rank, calls)
        homeward = combine_calls(plan, [output] * RANKS, calls)  # outputs are of equal size here
        return output, worlds.combine(rank, homeward)


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
    variables = {
        "ASCEND_MOE_PRODUCT": "A2",
        "HCCL_INTRA_PCIE_ENABLE": str(int(rank != 3)),
        "HCCL_INTRA_ROCE_ENABLE": "0",
    }
    with mock.patch.dict(os.environ, variables):
        return worlds.dispatch(rank, calls)


def test_a_foreign_handle_is_named_and_the_group_survives(world: worlds.World):
    outcomes = world.outcomes(_combine_with_a_foreign_handle, simple_calls(comm_alg="hierarchy"))
    for rank, outcome in enumerate(outcomes):
        if rank == 0:
            assert isinstance(outcome, ConstraintError)
            assert {violation.rule for violation in outcome.violations} == {"E-08"}
            assert "no rank sent a row for token 0, k 0 of rank 0" in str(outcome)
            assert "two rows claim token 0, k 1 of rank 0" in str(outcome)
        else:
            assert outcome.shape == (1, 32)
    assert all(
        output[0].any() for output in world.run(_dispatch_on_a2, simple_calls(comm_alg="hierarchy"))
    )


def _dispatch_on_a2(rank: int, calls: list[dict[str, Any]]) -> Any:
    with mock.patch.dict(os.environ, {"ASCEND_MOE_PRODUCT": "A2"}):
        return worlds.dispatch(rank, calls)


def _combine_with_a_foreign_handle(rank: int, calls: list[dict[str, Any]]) -> Any:
    """Rank 0 is expert 0, whose first row belongs to token 0 of rank 0, place 0; its handle says place 1."""
    output = _dispatch_on_a2(rank, calls)
    if rank == 0:
        assert output[4][RANKS : RANKS + 2].tolist() == [0, 0]
        output[4][RANKS + 1] = 1
    names = ("expert_ids", "ep_world_size", "ep_rank_id", "moe_expert_num", "comm_alg")
    call = {name: calls[rank][name] for name in names} | {
        "expand_x": output[0],
        "assist_info_for_combine": output[2],
        "ep_send_counts": output[4],
        "expand_scales": output[6],
        "expert_scales": torch.ones(1, 3),
    }
    with mock.patch.dict(os.environ, {"ASCEND_MOE_PRODUCT": "A2"}):
        return worlds.combine(rank, [call] * RANKS)
