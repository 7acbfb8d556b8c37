"""Shared memory: who decides that it is used, what happens without it, and that outputs are nobody else's."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import small_calls
import torch
import torch.distributed as dist
import worlds
from small_calls import homeward

import ascend_moe
from ascend_moe import ConstraintError
from ascend_moe.contract.errors import PeerError
from ascend_moe.cpu.distributed.peers import state_of
from ascend_moe.cpu.windows import build, memory
from ascend_moe.cpu.windows.areas import Area
from ascend_moe.reference import combine_world, dispatch_world

RANKS = 3


@pytest.fixture(scope="module")
def world() -> Iterator[worlds.World]:
    with worlds.world(RANKS) as opened:
        yield opened


def make_calls(bs: int = 4, **changes: Any) -> list[dict[str, Any]]:
    return small_calls.make_calls(RANKS, bs=bs, seed=bs, **changes)


def works(world: worlds.World, bs: int = 4) -> None:
    calls = make_calls(bs)
    wanted = dispatch_world(calls)
    dispatched = world.run(worlds.dispatch, calls)
    for output, oracle in zip(dispatched, wanted, strict=True):
        assert all(one.equal(other) for one, other in zip(output, oracle, strict=True))
    back = homeward(calls, wanted)
    for output, oracle in zip(world.run(worlds.combine, back), combine_world(back), strict=True):
        assert output.equal(oracle)


def _windows() -> Any:
    return state_of(worlds.GROUPS["ep"]).windows


def _uses_windows(rank: int) -> bool:
    return _windows() is not None


# --- the choice ---------------------------------------------------------------------------------------------------


def test_ranks_of_one_host_share_memory(world: worlds.World):
    works(world)
    assert world.run(_uses_windows) == [True] * RANKS


def test_one_rank_decides_for_all():
    with worlds.world(RANKS, environments=[{}, worlds.DISTRIBUTED, {}]) as world:
        works(world)
        assert world.run(_uses_windows) == [False] * RANKS
        works(world)


def test_asked_for_by_name_and_impossible():
    asked = [{"ASCEND_MOE_CPU_TRANSPORT": "windows"}, worlds.DISTRIBUTED, {}]
    with worlds.world(RANKS, environments=asked) as world:
        for outcome in world.outcomes(worlds.dispatch, make_calls()):
            assert isinstance(outcome, RuntimeError)
            assert "rank 0 has ASCEND_MOE_CPU_TRANSPORT=windows" in str(outcome)
            assert "rank 1 has ASCEND_MOE_CPU_TRANSPORT=distributed" in str(outcome)


def test_an_unknown_transport_is_refused(monkeypatch: pytest.MonkeyPatch):
    with worlds.world(2, environments=[{"ASCEND_MOE_CPU_TRANSPORT": "pigeons"}]) as world:
        calls = [call | {"ep_world_size": 2} for call in make_calls()[:2]]
        for outcome in world.outcomes(worlds.dispatch, calls):
            assert isinstance(outcome, ValueError)
            assert "'pigeons', allowed: auto, windows, distributed" in str(outcome)


def _logged(rank: int, calls: Any) -> list[str]:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    log = logging.getLogger("ascend_moe")
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    for _ in range(3):
        worlds.dispatch(rank, calls)
    return [record.getMessage() for record in records]


@pytest.mark.parametrize(
    ("environments", "told"),
    [
        ([{}], "rows travel through shared memory"),
        ([worlds.DISTRIBUTED], "rank 0 has ASCEND_MOE_CPU_TRANSPORT=distributed"),
    ],
)
def test_the_choice_is_logged_once(environments: list[dict[str, str]], told: str):
    with worlds.world(RANKS, environments=environments) as world:
        for messages in world.run(_logged, make_calls()):
            assert [told in message for message in messages] == [True]


def _has_no_engine(rank: int) -> None:
    build.LIBRARY = Path("/nowhere")


def test_one_rank_without_the_engine_decides_for_all():
    with worlds.world(RANKS) as world:
        world.run(_has_no_engine, ranks=[1])
        works(world)
        assert world.run(_uses_windows) == [False] * RANKS
        works(world)


# --- memory that cannot be had ------------------------------------------------------------------------------------


def _without_memory(rank: int, victim: int, from_bytes: int, calls: Any, back: Any) -> Any:
    """On the victim memory of that size and more is refused, as a full or small file system would."""
    real_create, real_map = memory.create, memory.map_of_process

    def create(size: int) -> int:
        if size >= from_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_create(size)

    def map_of_process(pid: int, descriptor: int, size: int) -> Any:
        if size >= from_bytes:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return real_map(pid, descriptor, size)

    if rank == victim:
        memory.create, memory.map_of_process = create, map_of_process
    outputs = [worlds.dispatch(rank, calls) for _ in range(3)]
    return outputs, worlds.combine(rank, back), _windows() is None


@pytest.mark.parametrize("victim", [0, 2])
@pytest.mark.parametrize("from_bytes", [0, 20_000])
def test_without_memory_the_group_goes_over_to_torch_distributed(victim: int, from_bytes: int):
    """From the beginning, or when the first area is made; on the rank that makes it, or on one that opens it."""
    calls = make_calls()
    wanted = dispatch_world(calls)
    back = homeward(calls, wanted)
    home = combine_world(back)
    with worlds.world(RANKS) as world:
        results = world.run(_without_memory, victim, from_bytes, calls, back)
    for rank, (outputs, combined, went_over) in enumerate(results):
        assert went_over
        assert combined.equal(home[rank])
        for output in outputs:
            assert all(one.equal(other) for one, other in zip(output, wanted[rank], strict=True))


def test_pages_are_reserved_when_memory_is_made():
    """Otherwise a full file system would end the process with SIGBUS at some later write."""
    descriptor = memory.create(1 << 20)
    try:
        assert os.fstat(descriptor).st_blocks * 512 >= 1 << 20
    finally:
        os.close(descriptor)


def _die(rank: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_nothing_is_left_behind_by_kill():
    before = set(Path("/dev/shm").iterdir())
    with worlds.world(RANKS) as world:
        works(world)
        assert set(Path("/dev/shm").iterdir()) - before <= _of_torch(Path("/dev/shm"))
        world.outcomes(_die)
    assert not [path for path in set(Path("/dev/shm").iterdir()) - before if "moe" in path.name]


def _of_torch(folder: Path) -> set[Path]:
    """Tensors on their way through the test's own pipes."""
    return set(folder.glob("torch_*"))


def test_the_other_half_of_an_area_is_used_while_the_first_is_read():
    here, there = 1000, 1010
    area = Area(memory.Shared(torch.empty(0), here), size=10, halves=2, read_from=[0, 0])
    assert area.find_free(10, 2)
    assert area.base == here
    area.was_read(2)
    assert area.find_free(10, 3)  # and that call is refused
    assert area.base == there
    assert area.find_free(10, 4)
    assert area.base == here
    area.was_read(4)
    assert area.find_free(10, 5)
    assert area.base == there
    area.was_read(5)
    assert area.find_free(10, 6)
    assert area.base == here
    assert area.find_free(10, 7)
    assert area.base == there
    assert not area.find_free(11, 7)


def test_an_area_of_one_half_is_free_a_barrier_later():
    area = Area(memory.Shared(torch.empty(0), 1000), size=10)
    area.was_read(2)
    assert not area.find_free(10, 3)
    assert area.find_free(10, 4)


# --- ranks that do not fit together -------------------------------------------------------------------------------


def _product(rank: int, calls: Any) -> Any:
    with mock.patch.dict(os.environ, {"ASCEND_MOE_PRODUCT": "A2" if rank == 1 else "A3"}):
        return worlds.combine(rank, calls)


def test_a_rank_with_another_product_is_named(world: worlds.World):
    calls = make_calls(ep_world_size=RANKS)
    back = homeward(calls, dispatch_world(calls))
    works(world)
    with mock.patch.dict(os.environ, {"ASCEND_MOE_CHECK": "off"}):
        outcomes = world.outcomes(_unchecked, _product, back)
    for outcome in outcomes:
        assert isinstance(outcome, ConstraintError)
        assert "ranks disagree" in str(outcome) or "refuses" in str(outcome)
    works(world)


def _unchecked(rank: int, function: Any, calls: Any) -> Any:
    with mock.patch.dict(os.environ, {"ASCEND_MOE_CHECK": "off"}):
        return function(rank, calls)


def _publishes_nonsense(rank: int, calls: Any) -> Any:
    """While the first rank is on its way, the last one says that all its rows are for that one."""
    if rank == 0:
        time.sleep(1)
    if rank == RANKS - 1:
        threading.Timer(0.5, _want_the_first_expert_everywhere, [rank]).start()
    return worlds.dispatch(rank, calls)


def _want_the_first_expert_everywhere(rank: int) -> None:
    windows = _windows()
    ((call,),) = windows.state.calls.values()
    own = 4 * call.fields.max_bs * call.fields.topk
    ctypes.memset(windows.areas["dispatch"].base + call.fields.lanes_at + rank * own, 0, own)


def test_more_rows_than_there_can_be_name_who_published_them():
    """With an expert per rank, which all tokens choose, a rank gets one row of each token."""
    everybody = torch.arange(RANKS, dtype=torch.int32).repeat(4, 1)
    calls = make_calls(expert_ids=everybody, moe_expert_num=RANKS)
    with worlds.world(RANKS) as world:
        for _ in range(3):
            world.run(worlds.dispatch, calls)
        first, *others = world.outcomes(_publishes_nonsense, calls)
        assert isinstance(first, PeerError)
        assert f"rank {RANKS - 1} published rows that cannot be" in str(first)
        assert first.ranks == (RANKS - 1,)
        first, *later = world.outcomes(worlds.dispatch, calls)
        assert "cannot be used any more" in str(first)
        for outcomes in zip(others, later, strict=True):  # some notice in the same call
            error = next(one for one in outcomes if isinstance(one, PeerError))
            assert error.ranks == (RANKS - 1,)  # and not who gave up because of it


def test_a_rank_may_smooth_now_and_then():
    """Its rows are then published for each pair, not for each token, and so are all ranks'."""
    plain = make_calls(quant_mode=2)
    factors = torch.rand(2 * RANKS, 1024, generator=torch.Generator().manual_seed(1)) + 0.5
    mixed = [call | ({"scales": factors} if rank == 1 else {}) for rank, call in enumerate(plain)]
    with worlds.world(RANKS) as world:
        for calls in (plain, plain, mixed, plain, mixed, mixed, plain):
            for output, oracle in zip(
                world.run(worlds.dispatch, calls), dispatch_world(calls), strict=True
            ):
                received = int(oracle[4][-1])
                assert output[0][:received].equal(oracle[0][:received])
                assert output[1][:received].equal(oracle[1][:received])


def _sends_a_block_of_nonsense(rank: int, back: Any) -> Any:
    """Rank 1 says that its rows for each rank but the first begin where no row can be."""
    if rank != 1:
        return worlds.combine(rank, back)
    with mock.patch.object(np, "cumsum", lambda counts: np.add.accumulate(counts) + 1_000_000):
        return worlds.combine(rank, back)


def test_blocks_from_shared_memory_are_checked_before_use():
    """Rows that travel as int8 take the way that all other modes take."""
    calls = make_calls()
    back = [call | {"comm_quant_mode": 2} for call in homeward(calls, dispatch_world(calls))]
    with worlds.world(RANKS) as world:
        works(world)
        outcomes = world.outcomes(_sends_a_block_of_nonsense, back)
        for outcome in outcomes[1:]:
            assert isinstance(outcome, PeerError)
            assert "rank 1 published rows that cannot be" in str(outcome)
            assert outcome.ranks == (1,)


def _comes_after_the_others_left(rank: int, calls: Any) -> Any:
    os.environ["ASCEND_MOE_TIMEOUT_S"] = "1"
    if rank == 1:
        time.sleep(3)
    return worlds.dispatch(rank, calls)


def test_a_late_rank_learns_that_the_others_left_because_of_it():
    with worlds.world(RANKS) as world:
        works(world)
        works(world)
        outcomes = world.outcomes(_comes_after_the_others_left, make_calls())
        assert [outcome.ranks for outcome in outcomes] == [(1,), (1,), (1,)]
        assert "rank 1 did not arrive" in str(outcomes[1])


# --- contents of calls whose kind is remembered -------------------------------------------------------------------


def _kinds_remembered(rank: int) -> int:
    return len(state_of(worlds.GROUPS["ep"]).calls)


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
    assert min(world.run(_kinds_remembered)) > 0
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
        for output, oracle in zip(world.run(worlds.dispatch, calls), wanted, strict=True):
            assert all(one.equal(other) for one, other in zip(output, oracle, strict=True))


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
        assert all(map(torch.equal, outputs, dispatched[rank]))
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
        for outputs, oracle in zip(results, wanted, strict=True):
            assert all(map(torch.equal, outputs, oracle[rank]))


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


def test_a_row_that_comes_twice_is_named(world: worlds.World):
    """Rank 2's first row claims the place of its second one: both are places of the same owner."""
    ids = torch.tensor([[4, 0], [4, 1], [4, 2], [4, 3]]).int()
    calls = make_calls(expert_ids=ids)
    back = homeward(calls, world.run(worlds.dispatch, calls))
    for _ in range(3):
        world.run(worlds.combine, back)
    handle = back[2]["assist_info_for_combine"].clone()
    assert handle[:6].tolist() == [0, 0, 0, 0, 1, 0]
    handle[1] = 1
    back[2]["assist_info_for_combine"] = handle
    outcomes = world.outcomes(worlds.combine, back)
    assert "two rows claim token 1, k 0 of rank 0 (1 such rows)" in str(outcomes[0])
    assert "no rank sent a row for token 0, k 0 of rank 0 (1 such pairs)" in str(outcomes[0])
    assert all(isinstance(outcome, torch.Tensor) for outcome in outcomes[1:])
    works(world)


# --- outputs ------------------------------------------------------------------------------------------------------


KEEPING: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda outputs: None,
    "a tensor": lambda outputs: outputs[0],
    "a view": lambda outputs: outputs[0][1:],
    "numpy": lambda outputs: outputs[3].numpy(),
    "another output": lambda outputs: outputs[4],
    "its storage": lambda outputs: outputs[0].untyped_storage(),
    "dlpack": lambda outputs: torch.utils.dlpack.to_dlpack(outputs[0]),
    "a graph": lambda outputs: outputs[0] * torch.ones(1024).bfloat16().requires_grad_(),
}


def _keeps(rank: int, how: str, calls: Any) -> bool:
    """Whether the next outputs have the memory of outputs of which this rank still keeps something."""
    worlds.dispatch(rank, calls)  # through torch.distributed
    outputs = worlds.dispatch(rank, calls)
    first, wanted = outputs[0].data_ptr(), outputs[0].clone()
    kept: Any = KEEPING[how](outputs)
    del outputs
    again = worlds.dispatch(rank, [calls[0] | {"x": call["x"] + 1} | _own(call) for call in calls])
    same = again[0].data_ptr() == first
    if how == "a tensor":
        assert kept.equal(wanted)
    del kept
    return same


def _own(call: dict[str, Any]) -> dict[str, Any]:
    return {name: call[name] for name in ("expert_ids", "ep_rank_id")}


@pytest.mark.parametrize("how", KEEPING)
def test_memory_is_used_again_when_nobody_sees_it(world: worlds.World, how: str):
    assert world.run(_keeps, how, make_calls()) == [how == "nothing"] * RANKS


def _fewer_rows(rank: int, many: Any, few: Any) -> Any:
    worlds.dispatch(rank, many)
    worlds.dispatch(rank, many)
    return worlds.dispatch(rank, few)


def test_rows_of_an_earlier_call_do_not_show(world: worlds.World):
    many = make_calls()
    few = make_calls(x_active_mask=torch.tensor([True, False, False, False]))
    wanted = dispatch_world(few)
    for output, oracle in zip(world.run(_fewer_rows, many, few), wanted, strict=True):
        assert all(one.equal(other) for one, other in zip(output, oracle, strict=True))


# --- expert outputs that are read in place ------------------------------------------------------------------------


def _in_place(rank: int, in_place: bool, calls: Any, back: Any) -> Any:
    """Combines ever other rows, written over as soon as combine returns; one rank is slow to read them."""
    worlds.dispatch(rank, calls)
    name = ascend_moe.hccl_comm_name(worlds.GROUPS["ep"], rank)
    call = back[rank]
    rows, results = call["expand_x"].clone(), []
    if in_place:
        rows = ascend_moe.empty_expert_outputs(*rows.shape, dtype=rows.dtype, group_ep=name)
    for factor in range(1, 9):
        rows.copy_(call["expand_x"] * factor)
        results.append(worlds.combine(rank, [call | {"expand_x": rows}] * RANKS).clone())
        rows.fill_(7)
    assert (not in_place) or len(_windows().in_place.own) == 1
    del rows
    assert len(_windows().in_place.own) == 0
    return results


@pytest.mark.parametrize("who", ["all", "rank 1"])
def test_rows_in_shared_memory_are_read_where_they_are(world: worlds.World, who: str):
    calls = make_calls(bs=64)
    back = homeward(calls, dispatch_world(calls))
    wanted = [
        combine_world([call | {"expand_x": call["expand_x"] * factor} for call in back])
        for factor in range(1, 9)
    ]
    results = world.run(_on_some_ranks, who, calls, back)
    works(world)
    for rank, outputs in enumerate(results):
        for output, oracle in zip(outputs, wanted, strict=True):
            assert output.equal(oracle[rank])


def _on_some_ranks(rank: int, who: str, calls: Any, back: Any) -> Any:
    return _in_place(rank, who == "all" or rank == 1, calls, [dict(call) for call in back])


def test_without_shared_memory_expert_outputs_are_ordinary():
    with worlds.world(RANKS, environments=[worlds.DISTRIBUTED]) as world:
        assert world.run(_ordinary) == [(6, 4)] * RANKS


def _ordinary(rank: int) -> Any:
    with pytest.raises(ValueError, match="names no torch"):
        ascend_moe.empty_expert_outputs(6, 4, group_ep="nobody")
    name = ascend_moe.hccl_comm_name(worlds.GROUPS["ep"], rank)
    return tuple(ascend_moe.empty_expert_outputs(6, 4, group_ep=name).shape)
