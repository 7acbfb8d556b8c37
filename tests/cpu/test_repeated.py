"""Calls whose kind is remembered: what changes from one to the next is seen, and checked every time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import small_calls
import torch
import torch.distributed as dist
import worlds
from small_calls import homeward, kinds_remembered, same, works

import ascend_moe
from ascend_moe import ConstraintError
from ascend_moe.cpu.distributed.peers import state_of
from ascend_moe.reference import combine_world, dispatch_world

RANKS = 3
make_calls = partial(small_calls.make_calls, RANKS)


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {}


ALL = torch.ones(4, dtype=torch.bool)
PAIRS = torch.ones(4, 2, dtype=torch.bool)
GAP = torch.tensor([True, False, True, True])
MASKED_PAIR = torch.tensor([[True, True], [True, False], [True, True], [False, False]])


@pytest.mark.parametrize(
    ("legal", "changes", "rule"),
    [
        ({}, {"expert_ids": torch.tensor([[0, 1], [2, 6], [0, 1], [0, 1]]).int()}, "X-36"),
        ({}, {"expert_ids": torch.tensor([[0, 1], [2, 3], [0, -1], [0, 1]]).int()}, "X-36"),
        ({}, {"expert_ids": torch.tensor([[0, 1], [2, 3], [4, 4], [0, 1]]).int()}, "X-37"),
        ({"x_active_mask": ALL}, {"x_active_mask": GAP}, "X-34"),
        ({"x_active_mask": PAIRS}, {"x_active_mask": GAP[:, None].repeat(1, 2)}, "X-34"),
        (
            {"x_active_mask": MASKED_PAIR},
            {"expert_ids": torch.tensor([[0, 1], [2, 2], [6, 1], [9, 9]]).int()},
            "X-36",
        ),
    ],
)
def test_contents_are_checked_every_time(
    world: worlds.World, legal: dict[str, Any], changes: dict[str, Any], rule: str
):
    calls = make_calls(**legal)
    for _ in range(4):
        world.run(worlds.dispatch, calls)
    assert min(world.run(kinds_remembered)) > 0
    calls[1] |= changes
    for rank, outcome in enumerate(world.outcomes(worlds.dispatch, calls)):
        assert isinstance(outcome, ConstraintError)
        assert [violation.rule for violation in outcome.violations] == [rule]
        assert ("rank 1 refuses the call" in str(outcome)) == (rank != 1)
    works(world)


def test_inactive_pairs_may_hold_anything(world: worlds.World):
    ids = torch.tensor([[0, 1], [2, 2], [5, 1], [9, -9]]).int()
    calls = make_calls(x_active_mask=MASKED_PAIR, expert_ids=ids)
    wanted = dispatch_world(calls)
    for _ in range(3):
        assert all(map(same, world.run(worlds.dispatch, calls), wanted))


def _apart(tensor: torch.Tensor) -> torch.Tensor:
    """The same elements with gaps between them."""
    wide = torch.zeros(*tensor.shape[:-1], 2 * tensor.shape[-1], dtype=tensor.dtype)
    wide[..., ::2] = tensor
    return wide[..., ::2]


def _in_inference_mode(tensor: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return tensor.clone()


SAME: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "as it is": lambda tensor: tensor,
    "with gaps": _apart,
    "negated when read": lambda tensor: torch._neg_view(-tensor),
    "a parameter": lambda tensor: torch.nn.Parameter(tensor, requires_grad=False),
    "made in inference mode": _in_inference_mode,
    "a view": lambda tensor: torch.cat([tensor, tensor])[len(tensor) :],
}
ANOTHER: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "requires grad": lambda tensor: tensor.clone().requires_grad_(),
    "fp32": lambda tensor: tensor.float(),
    "fewer dimensions": lambda tensor: tensor[0],
    "another size": lambda tensor: tensor[:, :-1],
}


def _looks_otherwise(rank: int, how: str, calls: Any, back: Any) -> Any:
    """Both calls again and again, then with ``x`` and ``expert_scales`` that are the same in another way."""
    for _ in range(3):
        worlds.dispatch(rank, calls)
        worlds.combine(rank, back)
    calls, back = [dict(call) for call in calls], [dict(call) for call in back]
    calls[rank]["x"] = SAME[how](calls[rank]["x"])
    back[rank]["expert_scales"] = SAME[how](back[rank]["expert_scales"])
    outputs = worlds.dispatch(rank, calls)
    return [output.clone() for output in outputs], worlds.combine(rank, back).clone()


@pytest.mark.parametrize("how", SAME)
def test_equal_tensors_of_any_kind_give_the_same(world: worlds.World, how: str):
    calls = make_calls()
    dispatched = dispatch_world(calls)
    back = homeward(calls, dispatched)
    combined = combine_world(back)
    for rank, (outputs, output) in enumerate(world.run(_looks_otherwise, how, calls, back)):
        assert same(outputs, dispatched[rank])
        assert output.equal(combined[rank])


def _is_another(rank: int, how: str, calls: Any) -> Any:
    for _ in range(3):
        worlds.dispatch(rank, calls)
    x = calls[rank]["x"]
    calls[rank] = calls[rank] | {"x": ANOTHER[how](x) if rank == 1 else x}
    return worlds.dispatch(rank, calls)


@pytest.mark.parametrize("how", ANOTHER)
def test_a_tensor_of_another_kind_is_not_taken_for_a_known_one(world: worlds.World, how: str):
    for rank, outcome in enumerate(world.outcomes(_is_another, how, make_calls())):
        assert isinstance(outcome, ConstraintError)
        assert ("rank 1 refuses the call" in str(outcome)) == (rank != 1)
    works(world)


def _one_after_the_other(rank: int, calls: Any) -> Any:
    """Each three times; only tensors that may be absent differ."""
    return [[worlds.dispatch(rank, one)[:] for _ in range(3)][-1] for one in (*calls, *calls[::-1])]


def test_calls_that_differ_only_in_which_tensors_they_have(world: worlds.World):
    weights = torch.rand(4, 2)
    changes: list[dict[str, Any]] = [
        {},
        {"expert_scales": weights},
        {"x_active_mask": PAIRS},
        {"expert_scales": weights, "x_active_mask": ALL},
    ]
    calls = [make_calls(**change) for change in changes]
    wanted = [dispatch_world(one) for one in (*calls, *calls[::-1])]
    for rank, results in enumerate(world.run(_one_after_the_other, calls)):
        assert all(map(same, results, [oracle[rank] for oracle in wanted]))


def _loses_a_tensor(rank: int, back: Any, name: str) -> Any:
    """The values of const experts are worked out before anything else happens in a repeated call."""
    for _ in range(3):
        worlds.combine(rank, back)
    return worlds.combine(rank, [call | {name: None} for call in back])


@pytest.mark.parametrize("name", ["ori_x", "const_expert_v"])
def test_const_experts_without_their_tensors_are_refused(world: worlds.World, name: str):
    ids = torch.tensor([[0, 6], [2, 3], [6, 5], [1, 4]]).int()
    calls = make_calls(expert_ids=ids, const_expert_num=1)
    rows = {"const_expert_num": 1, "ori_x": calls[0]["x"]} | {
        f"const_expert_{which}": torch.rand(1, 1024).bfloat16()
        for which in ("alpha_1", "alpha_2", "v")
    }
    back = [call | rows for call in homeward(calls, dispatch_world(calls))]
    for rank, outcome in enumerate(world.outcomes(_loses_a_tensor, back, name)):
        assert isinstance(outcome, ConstraintError), outcome
        assert name in str(outcome), (rank, outcome)
    works(world)


def _in_a_group_that_is_destroyed(rank: int, calls: Any) -> bool:
    """Whether the calls took their steps in shared memory; the group is still referred to when it is gone."""
    group = dist.new_group(list(range(RANKS)))
    call = calls[rank] | {"group_ep": ascend_moe.hccl_comm_name(group, rank)}
    for _ in range(3):
        ascend_moe.npu_moe_distribute_dispatch_v2(**call)
    remembered = len(state_of(group).calls) > 0
    dist.destroy_process_group(group)
    with pytest.raises(ConstraintError, match="names no torch"):
        ascend_moe.npu_moe_distribute_dispatch_v2(**call)
    return remembered


def test_a_group_that_was_destroyed_is_not_used(world: worlds.World):
    assert all(world.run(_in_a_group_that_is_destroyed, make_calls()))
    works(world)
