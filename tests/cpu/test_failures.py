"""What happens when ranks disagree, die, come late or hand in nonsense: an error that names it, never a hang."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from typing import Any

import pytest
import small_calls
import torch
import torch.distributed as dist
import worlds
from small_calls import homeward, works
from worlds import RankDied

import ascend_moe
from ascend_moe import ConstraintError
from ascend_moe.contract.errors import PeerError
from ascend_moe.reference import combine_world, dispatch_world

RANKS = 3
make_calls = partial(small_calls.make_calls, RANKS)
SHORT = {"ASCEND_MOE_TIMEOUT_S": "2"}


# --- ranks that disagree -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attribute", "odd"),
    [
        ("moe_expert_num", 9),
        ("moe_expert_num", 7),  # illegal on its own rank as well
        ("quant_mode", 2),
        ("global_bs", 12),
        ("ep_world_size", 4),
        ("shared_expert_num", 0),
    ],
)
def test_disagreement_is_named_on_every_rank(world: worlds.World, attribute: str, odd: int):
    calls = make_calls()
    usual = {"quant_mode": 0, "global_bs": 0, "shared_expert_num": 1} | calls[0]
    calls[1][attribute] = odd
    started = time.monotonic()
    outcomes = world.outcomes(worlds.dispatch, calls)
    assert time.monotonic() - started < 20
    for rank, outcome in enumerate(outcomes):
        assert isinstance(outcome, ConstraintError), f"rank {rank}: {outcome!r}"
        broken = [v for v in outcome.violations if (v.rule, v.param) == ("X-40", attribute)]
        assert broken, f"rank {rank}: {outcome}"
        for expected in (str(odd), str(usual[attribute]), "rank 1", "ranks 0, 2"):
            assert expected in broken[0].message, f"rank {rank}: {broken[0].message}"
    works(world)


def test_different_operators_meet(world: worlds.World):
    calls = make_calls()
    back = homeward(calls, dispatch_world(calls))
    outcomes = world.outcomes(_rank_1_combines, calls, back)
    for outcome in outcomes:
        assert isinstance(outcome, ConstraintError)
        assert "'combine' on rank 1" in str(outcome)
    works(world)


def _rank_1_combines(rank: int, calls: Any, back: Any) -> Any:
    return worlds.combine(rank, back) if rank == 1 else worlds.dispatch(rank, calls)


@pytest.mark.parametrize(
    ("changes", "of_rank_0", "said"),
    [
        ({}, {}, "4 on ranks 0-1, 2 on rank 2"),
        (
            {"global_bs": 12},
            {"x_active_mask": torch.tensor([True, True, True, False])},
            "rank 0 masks",
        ),
    ],
)
def test_uneven_bs_needs_global_bs_and_forbids_masks(
    world: worlds.World, changes: dict[str, Any], of_rank_0: dict[str, Any], said: str
):
    calls = make_calls(**changes)
    calls[0] |= of_rank_0
    calls[2] |= {"x": calls[2]["x"][:2], "expert_ids": calls[2]["expert_ids"][:2]}
    for outcome in world.outcomes(worlds.dispatch, calls):
        assert isinstance(outcome, ConstraintError)
        (broken,) = outcome.violations
        assert broken.rule == "X-45"
        assert said in broken.message
        assert changes or broken.limit == 12
    works(world)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"expert_ids": torch.tensor([[0, 1], [2, 3], [3, 3], [4, 5]]).int()}, "X-37"),
        ({"ep_rank_id": 0}, "X-08"),
    ],
)
def test_a_refusal_reaches_the_peers(world: worlds.World, changes: dict[str, Any], rule: str):
    calls = make_calls()
    calls[1] |= changes
    for rank, outcome in enumerate(world.outcomes(worlds.dispatch, calls)):
        assert isinstance(outcome, ConstraintError)
        assert rule in str(outcome)
        assert rank != 1 or outcome.violations[0].rule == rule
        assert ("rank 1 refuses the call" in str(outcome)) == (rank != 1)
    works(world)


def _rank_1_refuses_early(rank: int, calls: Any) -> Any:
    time.sleep(0 if rank == 1 else 3)
    return worlds.dispatch(rank, calls)


def test_a_refusal_does_not_wait_for_late_peers(world: worlds.World):
    """What the peers say later belongs to the refused call and must not be taken for the next one."""
    calls = make_calls()
    calls[1]["quant_mode"] = 1
    for rank, outcome in enumerate(world.outcomes(_rank_1_refuses_early, calls)):
        assert isinstance(outcome, ConstraintError)
        assert ("rank 1 refuses" in str(outcome)) == (rank != 1)
    works(world, times=2)


def test_every_rank_refuses(world: worlds.World):
    calls = make_calls(quant_mode=1)
    for _ in range(3):
        for outcome in world.outcomes(worlds.dispatch, calls):
            assert isinstance(outcome, ConstraintError)
            assert outcome.violations[0].param == "quant_mode"
    works(world)


# --- ranks that die or do not come -------------------------------------------------------------------------------


def _die_in(rank: int, victim: int, calls: Any) -> Any:
    if rank == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    return worlds.dispatch(rank, calls)


@pytest.mark.parametrize("victim", [0, 2])
def test_a_dead_rank_is_named(doomed: worlds.World, victim: int):
    works(doomed)
    started = time.monotonic()
    outcomes = doomed.outcomes(_die_in, victim, make_calls())
    assert time.monotonic() - started < 20, "a death is seen at once, not after the time limit"
    assert isinstance(outcomes.pop(victim), RankDied)
    for outcome in outcomes:
        assert isinstance(outcome, PeerError)
        assert outcome.ranks == (victim,)
        assert f"rank {victim} closed the connection" in str(outcome)
    others = [rank for rank in range(RANKS) if rank != victim]
    for outcome in doomed.outcomes(worlds.dispatch, make_calls(), ranks=others):
        assert isinstance(outcome, PeerError)
        assert f"cannot be used any more: rank {victim}" in str(outcome)


def _die_between_the_others(rank: int, calls: Any) -> Any:
    """Rank 2 calls first, then rank 0 dies, then rank 1 calls and cannot even start a message to rank 0."""
    time.sleep({2: 0.0, 0: 0.7, 1: 1.4}[rank])
    if rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return worlds.dispatch(rank, calls)


def test_a_rank_that_fails_at_once_still_answers_the_others(doomed: worlds.World):
    works(doomed)
    started = time.monotonic()
    outcomes = doomed.outcomes(_die_between_the_others, make_calls())
    assert time.monotonic() - started < 20
    for outcome in outcomes[1:]:
        assert isinstance(outcome, PeerError)
        assert outcome.ranks == (0,)


def _sleep_instead(rank: int, sleeper: int, calls: Any) -> Any:
    if rank == sleeper:
        time.sleep(5)
        return "late"
    return worlds.dispatch(rank, calls)


def test_a_late_rank_is_named_within_the_limit(doomed: worlds.World):
    works(doomed)
    started = time.monotonic()
    outcomes = doomed.outcomes(worlds.under, SHORT, _sleep_instead, 1, make_calls())
    assert outcomes.pop(1) == "late"
    assert time.monotonic() - started < 12
    for outcome in outcomes:
        assert isinstance(outcome, PeerError)
        assert outcome.ranks == (1,)
        assert "rank 1 did not arrive within 2 s (ASCEND_MOE_TIMEOUT_S)" in str(outcome)


def _on_another_group(rank: int, odd: int, calls: Any) -> Any:
    """Every rank makes two groups of the same members; rank ``odd`` calls on the second."""
    names = [ascend_moe.hccl_comm_name(dist.new_group(), rank) for _ in range(2)]
    call = calls[rank] | {"group_ep": names[rank == odd]}
    try:
        return ascend_moe.npu_moe_distribute_dispatch_v2(**call)
    except PeerError as error:
        return str(error), names


def test_ranks_on_different_groups_learn_of_it(doomed: worlds.World):
    started = time.monotonic()
    outcomes = doomed.run(worlds.under, SHORT, _on_another_group, 1, make_calls())
    assert time.monotonic() - started < 15
    for rank, (text, (first, second)) in enumerate(outcomes):
        assert "X-40: group_ep must be the same on all ranks" in text, f"rank {rank}: {text}"
        if rank == 1:
            assert f"rank 0 waits on group_ep '{first}'" in text
            assert f"this rank on '{second}'" in text
        else:
            assert f"rank 1 waits on group_ep '{second}', this rank on '{first}'" in text


@pytest.mark.parametrize("text", ["soon", "0", "-3", "inf", "nan", ""])
def test_a_time_limit_that_is_none(world: worlds.World, text: str):
    limit = {"ASCEND_MOE_TIMEOUT_S": text}
    for outcome in world.outcomes(worlds.under, limit, worlds.dispatch, make_calls()):
        assert isinstance(outcome, ValueError)
        assert "ASCEND_MOE_TIMEOUT_S" in str(outcome)
    works(world)


# --- the edges of what is legal ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "counts", "factor"),
    [
        ({"x_active_mask": torch.zeros(4, dtype=torch.bool)}, [[0, 0]] * 3, 0.0),
        ({"expert_ids": torch.full((4, 1), 5).int()}, [[0, 0], [0, 0], [0, 12]], 0.5),
    ],
)
def test_all_tokens_masked_or_to_one_expert(
    world: worlds.World, changes: dict[str, Any], counts: list[list[int]], factor: float
):
    calls = make_calls(**changes)
    dispatched = world.run(worlds.dispatch, calls)
    assert [output[3].tolist() for output in dispatched] == counts
    assert [int(output[4].max()) for output in dispatched] == list(map(sum, counts))
    combined = world.run(worlds.combine, homeward(calls, dispatched))
    for call, output in zip(calls, combined, strict=True):
        assert output.equal((call["x"].float() * factor).bfloat16())


def test_no_tokens_on_one_rank(world: worlds.World):
    """The documents want BS >= 1 (X-24): refused on every rank; without the rule table it simply works."""
    calls = make_calls(global_bs=12)
    calls[1] |= {"x": calls[1]["x"][:0], "expert_ids": calls[1]["expert_ids"][:0]}
    for outcome in world.outcomes(worlds.dispatch, calls):
        assert isinstance(outcome, ConstraintError)
        assert outcome.violations[0].rule == "X-24"
    works(world, calls, variables={"ASCEND_MOE_CHECK": "off"})


# --- combine with what another dispatch returned ------------------------------------------------------------------


def test_handle_with_too_few_rows(world: worlds.World):
    masked = make_calls(x_active_mask=torch.tensor([True, True, False, False]))
    back = homeward(make_calls(), world.run(worlds.dispatch, masked))
    for rank, outcome in enumerate(world.outcomes(worlds.combine, back)):
        assert isinstance(outcome, ConstraintError)
        assert outcome.violations[0].rule == "E-08"
        assert f"no rank sent a row for token 2, k 0 of rank {rank}" in str(outcome)
    with pytest.raises(ConstraintError, match="E-08"):
        combine_world(back)
    works(world)


@pytest.mark.parametrize(
    ("param", "index", "value"),
    [
        ("assist_info_for_combine", 0, 3),
        ("assist_info_for_combine", 0, -1),
        ("assist_info_for_combine", 1, 4),
        ("assist_info_for_combine", 1, -(2**31)),
        ("assist_info_for_combine", 2, 2),
        ("assist_info_for_combine", 2, 2**31 - 1),
        ("ep_send_counts", -1, 2**31 - 1),
        ("ep_send_counts", -1, -1),
    ],
)
def test_a_corrupt_handle_is_refused(world: worlds.World, param: str, index: int, value: int):
    calls = make_calls()
    back = homeward(calls, world.run(worlds.dispatch, calls))
    back[1][param] = back[1][param].clone()
    back[1][param][index] = value
    outcomes = world.outcomes(worlds.combine, back)
    assert outcomes[1].violations[0].param == param
    assert all(isinstance(o, ConstraintError) and o.violations[0].rule == "E-08" for o in outcomes)
    with pytest.raises(ConstraintError, match="E-08"):
        combine_world(back)
    works(world)


# --- one process, no world ----------------------------------------------------------------------------------------


def test_a_group_that_does_not_exist():
    with pytest.raises(ConstraintError, match=r"names no torch\.distributed group") as caught:
        ascend_moe.npu_moe_distribute_dispatch_v2(**make_calls(group_ep="nobody")[0])
    assert [v.rule for v in caught.value.violations] == ["E-05"]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"moe_expert_num": 7}, "X-10"),
        ({"moe_expert_num": 0}, None),
        ({"moe_expert_num": -6}, None),
        ({"ep_rank_id": 3}, "X-07"),
        ({"ep_world_size": 0}, None),
        ({"ep_world_size": -3}, None),
        ({"x": torch.zeros(4, 1024)}, "D-02"),
        ({"x": torch.zeros(5, 1024).bfloat16()}, "D-03"),
        ({"x": torch.zeros(4096).bfloat16()}, "D-01"),
        ({"expert_ids": torch.zeros(4, 2).long()}, "X-35"),
        ({"expert_ids": torch.tensor([[0, 6]] * 4).int()}, "X-36"),
        ({"expert_ids": torch.tensor([[0, -1]] * 4).int()}, "X-36"),
        ({"expert_ids": torch.tensor([[2, 2]] * 4).int()}, "X-37"),
        ({"x_active_mask": torch.tensor([True, False, True, True])}, "X-34"),
        ({"x_active_mask": torch.ones(5, dtype=torch.bool)}, "X-32"),
        ({"x_active_mask": torch.ones(4)}, "X-32"),
        ({"quant_mode": 3}, "D-12"),
        ({"quant_mode": 2, "scales": torch.ones(5, 1024)}, "D-06"),
        ({"quant_mode": 2, "scales": torch.ones(6, 1024).half()}, "D-05"),
        ({"scales": torch.ones(6, 1024)}, "D-04"),
        ({"expert_scales": torch.ones(4, 3)}, "D-09"),
        ({"expert_token_nums_type": 2}, "D-13"),
        ({"shared_expert_num": 2}, "X-19"),
        ({"shared_expert_num": 2, "shared_expert_rank_num": 1}, "X-20"),
        ({"shared_expert_rank_num": 3}, "X-18"),
        ({"global_bs": 10}, "X-22"),
        ({"global_bs": 9}, "X-22"),
        ({"tp_world_size": 3}, "X-13"),
        ({"tp_world_size": 2}, "X-03"),
        ({"comm_alg": "hierarchy"}, "X-06"),
        ({"comm_alg": "hierarchy"}, "D-10"),
        ({"comm_alg": "hierarchy", "scales": torch.ones(6, 1024), "quant_mode": 2}, "D-08"),
        ({"comm_alg": "ccu"}, "X-29"),
        ({"performance_info": torch.zeros(4).long()}, "X-31"),
        ({"elastic_info": torch.zeros(9).int()}, "X-30"),
        ({"x": torch.zeros(4, 1024).bfloat16().requires_grad_()}, "E-11"),
    ],
)
@pytest.mark.parametrize("level", ["full", "off"])
def test_what_would_crash_or_compute_nonsense_is_refused(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], rule: str | None, level: str
):
    """Also for a direct torch.ops call, and also with the rule table switched off."""
    monkeypatch.setenv("ASCEND_MOE_CHECK", level)
    ascend_moe.register()
    with pytest.raises(ConstraintError) as caught:
        torch.ops.npu.npu_moe_distribute_dispatch_v2(**make_calls(group_ep="nobody")[0] | changes)
    rules = [violation.rule for violation in caught.value.violations]
    assert rule is None or rule in rules
    assert rules != ["E-05"]
