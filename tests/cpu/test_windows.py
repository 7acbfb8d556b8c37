"""Shared memory: who decides that it is used, what happens without it, and that outputs are nobody else's."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import small_calls
import torch
import worlds
from small_calls import homeward, kinds_remembered, same, works

import ascend_moe
from ascend_moe import ConstraintError
from ascend_moe.contract.errors import PeerError
from ascend_moe.cpu.distributed.peers import state_of
from ascend_moe.cpu.windows import build, memory
from ascend_moe.cpu.windows.areas import Area
from ascend_moe.reference import combine_world, dispatch_world

RANKS = 3
make_calls = partial(small_calls.make_calls, RANKS)


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {}


def _windows() -> Any:
    return state_of(worlds.GROUPS["ep"]).windows


def _uses_windows(rank: int) -> bool:
    return _windows() is not None


# --- the choice ---------------------------------------------------------------------------------------------------


def test_ranks_of_one_host_share_memory(world: worlds.World):
    works(world, times=3)
    assert world.run(_uses_windows) == [True] * RANKS


def _has_no_engine(rank: int) -> None:
    build.LIBRARY = Path("/nowhere")


def _does_nothing(rank: int) -> None:
    pass


@pytest.mark.parametrize(
    ("of_all", "of_one", "lack", "kinds"),
    [
        ({}, worlds.DISTRIBUTED, _does_nothing, 2),
        ({}, {}, _has_no_engine, 0),
        (worlds.DISTRIBUTED, {}, _has_no_engine, 0),
    ],
)
def test_one_rank_decides_for_all(of_all: Any, of_one: Any, lack: Any, kinds: int):
    """Without the engine nobody takes native steps, or remembers a kind of call, over torch.distributed either."""
    with worlds.world(RANKS, environments=[of_all, of_all | of_one, of_all]) as world:
        world.run(lack, ranks=[1])
        works(world, times=3)
        assert world.run(_uses_windows) == [False] * RANKS
        assert world.run(kinds_remembered) == [kinds] * RANKS


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        (
            ["windows", "distributed", "auto"],
            RuntimeError,
            "rank 0 has ASCEND_MOE_CPU_TRANSPORT=windows, but rank 1 has ASCEND_MOE_CPU_TRANSPORT=distributed",
        ),
        (["pigeons"], ValueError, "'pigeons', allowed: auto, windows, distributed"),
    ],
)
def test_what_cannot_be_had_is_refused(asked: list[str], kind: type[Exception], said: str):
    environments = [{"ASCEND_MOE_CPU_TRANSPORT": one} for one in asked]
    with worlds.world(RANKS, environments=environments) as world:
        for outcome in world.outcomes(worlds.dispatch, make_calls()):
            assert isinstance(outcome, kind)
            assert said in str(outcome)


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
        assert all(same(output, wanted[rank]) for output in outputs)


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
        on_their_way = set(Path("/dev/shm").glob("torch_*"))  # tensors in the test's own pipes
        assert set(Path("/dev/shm").iterdir()) - before <= on_their_way
        world.outcomes(_die)
    assert not [path for path in set(Path("/dev/shm").iterdir()) - before if "moe" in path.name]


def test_the_other_half_of_an_area_is_used_while_the_first_is_read():
    here, there = 1000, 1010
    area = Area(memory.Shared(torch.empty(0), here), size=10, halves=2, read_from=[0, 0])
    calls = [(2, here, True), (3, there, False), (4, here, True), (5, there, True)]
    for barrier, base, is_read in [*calls, (6, here, False), (7, there, False)]:
        assert area.find_free(10, barrier)
        assert area.base == base
        if is_read:  # else the call is refused
            area.was_read(barrier)
    assert not area.find_free(11, 7)


def test_an_area_of_one_half_is_free_a_barrier_later():
    area = Area(memory.Shared(torch.empty(0), 1000), size=10)
    area.was_read(2)
    assert not area.find_free(10, 3)
    assert area.find_free(10, 4)


# --- ranks that do not fit together -------------------------------------------------------------------------------


def _product(rank: int, calls: Any) -> Any:
    variables = {"ASCEND_MOE_PRODUCT": "A2" if rank == 1 else "A3", "ASCEND_MOE_CHECK": "off"}
    return worlds.under(rank, variables, worlds.combine, calls)


def test_a_rank_with_another_product_is_named(world: worlds.World):
    calls = make_calls()
    works(world)
    for outcome in world.outcomes(_product, homeward(calls, dispatch_world(calls))):
        assert isinstance(outcome, ConstraintError)
        assert "ranks disagree" in str(outcome) or "refuses" in str(outcome)
    works(world)


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
            outputs = world.run(worlds.dispatch, calls)
            for output, oracle in zip(outputs, dispatch_world(calls), strict=True):
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


def _comes_late(rank: int, calls: Any) -> Any:
    if rank == 1:
        time.sleep(3)
    return worlds.dispatch(rank, calls)


def test_a_late_rank_learns_that_the_others_left_because_of_it():
    with worlds.world(RANKS) as world:
        works(world, times=2)
        limit = {"ASCEND_MOE_TIMEOUT_S": "1"}
        outcomes = world.outcomes(worlds.under, limit, _comes_late, make_calls())
        assert [outcome.ranks for outcome in outcomes] == [(1,), (1,), (1,)]
        assert "rank 1 did not arrive" in str(outcomes[1])


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
    again = worlds.dispatch(rank, [call | {"x": call["x"] + 1} for call in calls])
    reused = again[0].data_ptr() == first
    if how == "a tensor":
        assert kept.equal(wanted)
    del kept
    return reused


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
    assert all(map(same, world.run(_fewer_rows, many, few), wanted))


# --- expert outputs that are read in place ------------------------------------------------------------------------


def _in_place(rank: int, who: str, calls: Any, back: Any) -> Any:
    """Combines other rows each time, written over as soon as combine returns; one rank is slow to read them."""
    worlds.dispatch(rank, calls)
    name = ascend_moe.hccl_comm_name(worlds.GROUPS["ep"], rank)
    call = back[rank]
    rows, results = call["expand_x"].clone(), []
    in_place = who == "all" or rank == 1
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
    results = world.run(_in_place, who, calls, back)
    works(world)
    for rank, outputs in enumerate(results):
        assert same(outputs, [oracle[rank] for oracle in wanted])


def test_without_shared_memory_expert_outputs_are_ordinary():
    with worlds.world(RANKS, environments=[worlds.DISTRIBUTED]) as world:
        assert world.run(_ordinary) == [(6, 4)] * RANKS


def _ordinary(rank: int) -> Any:
    with pytest.raises(ValueError, match="names no torch"):
        ascend_moe.empty_expert_outputs(6, 4, group_ep="nobody")
    name = ascend_moe.hccl_comm_name(worlds.GROUPS["ep"], rank)
    return tuple(ascend_moe.empty_expert_outputs(6, 4, group_ep=name).shape)
