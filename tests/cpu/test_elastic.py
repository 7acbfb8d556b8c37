"""Ranks die, the others shrink their group and go on with the oracle's bits; everything that can go wrong is named."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import small_calls
import torch
import worlds
from elastic_calls import calls_of as calls_of_ranks
from elastic_calls import home_of

import ascend_moe
from ascend_moe.contract.errors import ConstraintError, PeerError
from ascend_moe.cpu.distributed.group import resolve
from ascend_moe.cpu.distributed.peers import state_of
from ascend_moe.cpu.survivors import fresh
from ascend_moe.cpu.survivors.boards import HERE, Note, SharedMemory
from ascend_moe.cpu.survivors.meeting import Meeting
from ascend_moe.cpu.windows.control import NOTE_HEAD
from ascend_moe.reference import combine_world, dispatch_world

RANKS = 5
LIMIT = {"ASCEND_MOE_TIMEOUT_S": "10"}
SHARED = {"shared_expert_rank_num": 2, "moe_expert_num": 2 * (RANKS - 2)}


@pytest.fixture(params=["windows", "distributed"])
def world(request: pytest.FixtureRequest) -> Iterator[worlds.World]:
    """One for each test: they do not survive it."""
    environment = LIMIT | {"ASCEND_MOE_CPU_TRANSPORT": request.param}
    with worlds.world(RANKS, environments=[environment]) as opened:
        yield opened


@pytest.fixture
def memory_world() -> Iterator[worlds.World]:
    with worlds.world(
        RANKS, environments=[LIMIT | {"ASCEND_MOE_CPU_TRANSPORT": "windows"}]
    ) as opened:
        yield opened


def calls_of(left: Sequence[int], **how: Any) -> list[dict[str, Any]]:
    return calls_of_ranks(RANKS, left, **how)


def _round_trip(rank: int, calls: list[dict[str, Any]], back: list[dict[str, Any]] | None) -> Any:
    (own,) = (i for i, call in enumerate(calls) if call["ep_rank_id"] == rank)
    outputs = ascend_moe.npu_moe_distribute_dispatch_v2(**worlds.with_groups(rank, calls[own]))
    if back is None:
        return outputs
    home = {**back[own], "expand_x": outputs[0], "assist_info_for_combine": outputs[2]}
    home["ep_send_counts"] = outputs[4]
    return outputs, ascend_moe.npu_moe_distribute_combine_v2(**worlds.with_groups(rank, home))


def _die(rank: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _shrink(rank: int, dead: Sequence[int], timeout_s: float | None = None) -> list[int]:
    name = ascend_moe.hccl_comm_name(worlds.GROUPS["ep"], rank)
    info = ascend_moe.shrink(name, dead, timeout_s=timeout_s)
    assert info.dtype == torch.int32
    return info.tolist()


def works(world: worlds.World, left: Sequence[int], **more: Any) -> None:
    """Two round trips of the ranks that are left, against the oracle; the second one is remembered."""
    for seed in (1, 2):
        calls = calls_of(left, seed=seed, **more)
        wanted = dispatch_world(calls)
        back = home_of(calls, wanted)
        sums = combine_world(back)
        for index, (outputs, y) in enumerate(world.run(_round_trip, calls, back, ranks=left)):
            assert small_calls.same(outputs, wanted[index])
            assert y.equal(sums[index])


def dies(world: worlds.World, victims: Sequence[int], left: Sequence[int], **more: Any) -> None:
    """The others call, and name who is dead."""
    world.outcomes(_die, ranks=victims)
    before = sorted([*left, *victims])
    for error in world.outcomes(_round_trip, calls_of(before, **more), None, ranks=left):
        assert isinstance(error, PeerError), error
        assert set(error.ranks) <= set(victims), error


def shrinks(
    world: worlds.World, dead: Sequence[int], left: Sequence[int], **attributes: Any
) -> None:
    wanted = calls_of(left, attributes=attributes)[0]["elastic_info"].tolist()
    assert world.run(_shrink, dead, ranks=left) == [wanted] * len(left)


def test_two_deaths_one_after_the_other(world: worlds.World):
    works(world, range(RANKS))
    dies(world, [0], [1, 2, 3, 4])  # which made the memory, and is the first rank of the store
    shrinks(world, [0], [1, 2, 3, 4])
    works(world, [1, 2, 3, 4])
    dies(world, [3], [1, 2, 4])
    shrinks(world, [3], [1, 2, 4])
    works(world, [1, 2, 4])


def test_two_at_once_with_shared_experts_and_int8(world: worlds.World):
    works(world, range(RANKS), attributes=SHARED)
    dies(world, [1, 4], [0, 2, 3], attributes=SHARED)
    shrinks(world, [1, 4], [0, 2, 3], **SHARED)
    works(world, [0, 2, 3], attributes=SHARED)
    calls = calls_of([0, 2, 3], attributes=SHARED, quant_mode=2, scales=torch.rand(7, 1024))
    wanted = dispatch_world(calls)
    for outputs, oracle in zip(
        world.run(_round_trip, calls, None, ranks=[0, 2, 3]), wanted, strict=True
    ):
        assert small_calls.same(outputs, oracle)


def _waits(rank: int, calls: list[dict[str, Any]]) -> list[int]:
    info = torch.zeros(2 * RANKS, dtype=torch.int64)[::2]
    (call,) = (call for call in calls if call["ep_rank_id"] == rank)
    if rank == 2:
        time.sleep(0.3)
    ascend_moe.npu_moe_distribute_dispatch_v2(
        **worlds.with_groups(rank, call), performance_info=info
    )
    return info.tolist()


def test_waiting_is_told_by_old_ranks(world: worlds.World):
    works(world, range(RANKS))
    dies(world, [1], [0, 2, 3, 4])
    shrinks(world, [1], [0, 2, 3, 4])
    waits = world.run(_waits, calls_of([0, 2, 3, 4]), ranks=[0, 2, 3, 4])
    assert all(one[2] > 200_000 and one[1] == 0 for one in (waits[0], waits[2], waits[3]))


def _shape_only(rank: int, calls: list[dict[str, Any]], compiled: bool) -> Any:
    (call,) = (call for call in calls if call["ep_rank_id"] == rank)
    given = worlds.with_groups(rank, call)
    info = torch.zeros(RANKS, dtype=torch.int64)

    def dispatch(
        x: torch.Tensor, elastic_info: torch.Tensor, performance_info: torch.Tensor
    ) -> Any:
        more = {"elastic_info": elastic_info, "performance_info": performance_info}
        return ascend_moe.npu_moe_distribute_dispatch_v2(**{**given, "x": x, **more})

    function = (
        torch.compile(dispatch, fullgraph=True, backend="aot_eager") if compiled else dispatch
    )
    if not compiled:
        required = ("group_ep", "ep_world_size", "ep_rank_id", "moe_expert_num")
        positional = (given["x"], given["expert_ids"], *(given[name] for name in required))
        torch.library.opcheck(
            torch.ops.npu.npu_moe_distribute_dispatch_v2.default,
            positional,
            {
                "elastic_info": given["elastic_info"],
                **{n: given[n] for n in SHARED if n not in required},
            },
            test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_static"),
        )
    return function(given["x"], given["elastic_info"], info)


@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=pytest.mark.ci)], ids=["opcheck", "compile"]
)
def test_opcheck_fake_tensors_and_compile(memory_world: worlds.World, compiled: bool):
    works(memory_world, range(RANKS), attributes=SHARED)
    dies(memory_world, [4], [0, 1, 2, 3], attributes=SHARED)
    shrinks(memory_world, [4], [0, 1, 2, 3], **SHARED)
    calls = calls_of([0, 1, 2, 3], attributes=SHARED)
    wanted = dispatch_world(calls)
    for outputs, oracle in zip(
        memory_world.run(_shape_only, calls, compiled, ranks=[0, 1, 2, 3]), wanted, strict=True
    ):
        assert small_calls.same(outputs, oracle)


def test_calls_that_are_not_up_to_date_name_the_shrink(memory_world: worlds.World):
    works(memory_world, range(RANKS))
    left = [0, 1, 2, 4]
    dies(memory_world, [3], left)
    shrinks(memory_world, [3], left)
    for error in memory_world.outcomes(_round_trip, calls_of(range(RANKS)), None, ranks=left):
        assert isinstance(error, PeerError)
        assert "goes on without ranks [3] (ascend_moe.shrink)" in str(error)
        assert error.ranks == (3,)
    stale = [
        call | {"elastic_info": calls_of([0, 1, 3, 4])[0]["elastic_info"]}
        for call in calls_of(left)
    ]
    for error in memory_world.outcomes(_round_trip, stale, None, ranks=left):
        assert isinstance(error, ConstraintError)
        assert "E-15" in str(error)
        assert "met without ranks [3]" in str(error)
    works(memory_world, left)


def test_rules_hold_and_name_old_ranks(memory_world: worlds.World):
    works(memory_world, range(RANKS))
    left = [0, 2, 3, 4]
    dies(memory_world, [1], left)
    shrinks(memory_world, [1], left)
    works(memory_world, left)
    wrong = calls_of(left)
    wrong[2]["expert_ids"] = torch.full_like(
        wrong[2]["expert_ids"], 8
    )  # of rank 1's experts none is left
    outcomes = memory_world.outcomes(_round_trip, wrong, None, ranks=left)
    assert all(isinstance(one, ConstraintError) and "X-36" in str(one) for one in outcomes)
    assert "rank 3 refuses the call" in str(outcomes[0])
    differ = calls_of(left)
    differ[3]["x"] = torch.zeros(4, 1056).bfloat16()
    for one in memory_world.outcomes(_round_trip, differ, None, ranks=left):
        assert "1024 on ranks 0, 2-3, 1056 on rank 4" in str(one)
    works(memory_world, left)


def test_without_a_shrink_elastic_info_is_refused(world: worlds.World):
    works(world, range(RANKS))
    off = torch.zeros(4 + 2 * RANKS, dtype=torch.int32)
    works(world, range(RANKS), attributes={"elastic_info": off, "moe_expert_num": 2 * RANKS})
    calls = [*calls_of([0, 1, 2, 3]), calls_of(range(RANKS))[4]]
    calls = [call | {"elastic_info": calls[0]["elastic_info"]} for call in calls]
    for error in world.outcomes(
        _round_trip, calls, None
    ):  # of the kind of the last one, but for the words
        assert isinstance(error, ConstraintError)
        assert "E-15" in str(error)
    works(world, range(RANKS))


def test_half_a_note_is_none():
    windows: Any = SimpleNamespace(rank=0, ranks=2)
    windows.control = SimpleNamespace(notes=np.zeros((2, 64), np.uint8))
    windows.dead = set
    board, other = SharedMemory(windows), SharedMemory(windows)
    other.own = 1
    assert board.read() == {}
    note = Note(3, HERE, frozenset([0]), (7, -1))
    other.post(note)
    assert board.read() == {1: note}
    for at in (8, 16, NOTE_HEAD.itemsize):  # attempt, stage, who is gone
        windows.control.notes[1, at] ^= 1
        assert board.read() == {}
        windows.control.notes[1, at] ^= 1
    assert board.read() == {1: note}


def test_a_view_that_differed_counts_once_it_is_shared():
    """Rank 0 knew more, and waits; rank 3, which has failed over that, comes to know the same: they meet."""
    windows: Any = SimpleNamespace(rank=3, ranks=4, dead=set)
    windows.control = SimpleNamespace(notes=np.zeros((4, 64), np.uint8))
    meeting, other = Meeting(SharedMemory(windows)), SharedMemory(windows)
    other.own = 0
    other.post(Note(2, HERE, frozenset([1, 2])))
    how = {"what": "here", "names": range(4)}
    with pytest.raises(PeerError, match="disagree") as caught:
        meeting.agree([1], time.monotonic() + 5, **how)
    assert caught.value.ranks == (2,)
    meeting.agree([1, 2], time.monotonic() + 5, **how)
    other.post(Note(2, HERE, frozenset([1, 2]), (7, 1)))
    assert meeting.offered_by(0, time.monotonic() + 5, **how) == (7, 1)
    with pytest.raises(
        PeerError, match="rank 0 did not come in time"
    ):  # an offer is good for one meeting
        meeting.agree([1, 2], time.monotonic() + 0.1, **how)


def _shrink_own_way(rank: int, views: dict[int, list[int]], timeout_s: float) -> Any:
    return _shrink(rank, views[rank], timeout_s)


def test_ranks_of_different_views_are_named_and_meet_later(world: worlds.World):
    works(world, range(RANKS))
    dies(world, [3], [0, 1, 2, 4])
    views = {0: [3], 1: [3], 2: [3, 4], 4: [3]}
    outcomes = dict(
        zip(views, world.outcomes(_shrink_own_way, views, 8.0, ranks=[*views]), strict=True)
    )
    for rank, error in outcomes.items():
        assert isinstance(error, PeerError)
        assert "ranks disagree about who is gone" in str(error), error
        assert error.ranks == (() if rank == 2 else (4,))
        assert "rank 2 says [3, 4]" in str(error)
    shrinks(world, [3], [0, 1, 2, 4])
    works(world, [0, 1, 2, 4])


def test_who_does_not_come_and_who_dies_meanwhile_is_named(memory_world: worlds.World):
    works(memory_world, range(RANKS))
    dies(memory_world, [3], [0, 1, 2, 4])
    began = time.monotonic()
    for error in memory_world.outcomes(_shrink, [3], 0.5, ranks=[0, 1]):
        assert isinstance(error, PeerError)
        assert set(error.ranks) <= {0, 1, 2, 4}
        assert {2, 4} & set(error.ranks)
    assert time.monotonic() - began < 8
    memory_world.outcomes(_die, ranks=[2])
    for error in memory_world.outcomes(_shrink, [3], ranks=[0, 1, 4]):
        assert "rank 2 died as well" in str(error)
        assert error.ranks == (2,)
    shrinks(memory_world, [2, 3], [0, 1, 4])
    works(memory_world, [0, 1, 4])


def test_who_is_alive_may_be_left_out_and_is_told(memory_world: worlds.World):
    works(memory_world, range(RANKS))
    shrinks(memory_world, [2], [0, 1, 3, 4])
    (error,) = memory_world.outcomes(_round_trip, calls_of(range(RANKS)), None, ranks=[2])
    assert isinstance(error, PeerError)
    works(memory_world, [0, 1, 3, 4])


def _refused(rank: int, group: str | None, dead: Sequence[int], timeout_s: float | None) -> None:
    name = group or ascend_moe.hccl_comm_name(worlds.GROUPS["ep"], rank)
    ascend_moe.shrink(name, dead, timeout_s=timeout_s)


def test_arguments_that_are_refused(memory_world: worlds.World):
    def why(*given: Any) -> str:
        (error,) = memory_world.outcomes(_refused, *given, ranks=[0])
        return f"{type(error).__name__}: {error}"

    assert "never agreed about a call" in why(None, [1], None)
    attributes = SHARED | {"shared_expert_rank_num": 4, "moe_expert_num": 2}
    works(memory_world, range(RANKS), attributes=attributes)
    for given, text in (
        (("nowhere", [1], None), "names no CPU group"),
        ((None, [0], None), "which is this rank"),
        ((None, [RANKS], None), "allowed: 0..4"),
        ((None, [], None), "names nobody"),
        ((None, [1, 2, 3, 4], None), "no rank with MoE experts"),
        ((None, [1], -1.0), ">= 0"),
    ):
        said = why(*given)
        assert said.startswith("ValueError")
        assert text in said


def _leaves_nothing(rank: int) -> tuple[int, bool]:
    group = resolve(ascend_moe.hccl_comm_name(worlds.GROUPS["ep"], rank))
    assert group is not None
    state = state_of(group)
    return len([*Path("/proc/self/fd").iterdir()]), state.windows is None


def test_nothing_of_the_old_context_is_left(memory_world: worlds.World):
    works(memory_world, range(RANKS))
    before = dict(enumerate(memory_world.run(_leaves_nothing)))
    dies(memory_world, [3], [0, 1, 2, 4])
    shrinks(memory_world, [3], [0, 1, 2, 4])
    works(memory_world, [0, 1, 2, 4])
    after = memory_world.run(_leaves_nothing, ranks=[0, 1, 2, 4])
    for rank, (descriptors, gone) in zip([0, 1, 2, 4], after, strict=True):
        assert gone
        assert descriptors < before[rank][0]  # a pidfd less


def _other_mode(rank: int, changes: dict[str, Any], product: str) -> str:
    """A call of a mode without elastic_info, then a shrink."""
    os.environ["ASCEND_MOE_PRODUCT"] = product
    call = small_calls.make_calls(16)[rank] | changes
    if product == "A2":
        call["expert_scales"] = torch.ones(call["expert_ids"].shape)
    ascend_moe.npu_moe_distribute_dispatch_v2(**worlds.with_groups(rank, call))
    try:
        _shrink(rank, [rank - 1 if rank else 1])
    except RuntimeError as error:
        return str(error)
    return ""


@pytest.mark.ci
def test_modes_without_elastic_info_refuse_by_name():
    scales = torch.ones(4, 2)
    hierarchy = {"comm_alg": "hierarchy", "expert_scales": scales}
    for changes, product, why in (
        ({}, "A2", "on A2"),
        (hierarchy, "A2", "on A2"),
        (hierarchy, "A3", "not even for a whole server"),
    ):
        with worlds.world(16, environments=[LIMIT]) as opened:
            said = opened.run(_other_mode, changes, product)
        assert all(why in text for text in said), said


def _tp(rank: int) -> str:
    calls = small_calls.make_calls(2, tp_world_size=2)
    call = calls[rank // 2] | {"tp_rank_id": rank % 2, "ep_rank_id": rank // 2, "moe_expert_num": 2}
    call["expert_ids"] = call["expert_ids"][:, :1] % 2
    ascend_moe.npu_moe_distribute_dispatch_v2(**worlds.with_groups(rank, call))
    try:
        _shrink(rank, [1 - rank // 2])
    except RuntimeError as error:
        return str(error)
    return ""


def test_tp_refuses_by_name():
    with worlds.world(4, tp=2, environments=[LIMIT]) as opened:
        assert all("with tp_world_size = 2" in text for text in opened.run(_tp))


def _in_place(rank: int, calls: list[dict[str, Any]], back: list[dict[str, Any]]) -> Any:
    """Combine of rows in memory that peers read where it is: made before the shrink, and after it."""
    (own,) = (i for i, call in enumerate(calls) if call["ep_rank_id"] == rank)
    home = worlds.with_groups(rank, back[own])
    rows, sums = home["expand_x"], []
    for memory in (KEPT.get("rows"), _expert_outputs(rank, rows)):
        if memory is not None:
            sums.append(_combine_from(memory[: len(rows)], rows, home))
    KEPT["rows"] = memory
    return sums


KEPT: dict[str, torch.Tensor] = {}
"""In a rank: expert outputs that its caller made before."""


def _expert_outputs(rank: int, rows: torch.Tensor) -> torch.Tensor:
    name = ascend_moe.hccl_comm_name(worlds.GROUPS["ep"], rank)
    return ascend_moe.empty_expert_outputs(2 * len(rows), rows.shape[1], group_ep=name)


def _combine_from(memory: torch.Tensor, rows: torch.Tensor, home: dict[str, Any]) -> torch.Tensor:
    memory.copy_(rows)
    return ascend_moe.npu_moe_distribute_combine_v2(**{**home, "expand_x": memory})


def test_expert_outputs_are_read_in_place_before_and_after(memory_world: worlds.World):
    for left in (range(RANKS), [0, 1, 3, 4]):
        if len(left) < RANKS:
            dies(memory_world, [2], left)
            shrinks(memory_world, [2], left)
        works(memory_world, left)
        calls = calls_of(left)
        back = home_of(calls, dispatch_world(calls))
        wanted = combine_world(back)
        for found, oracle in zip(
            memory_world.run(_in_place, calls, back, ranks=left), wanted, strict=True
        ):
            assert len(found) == 1 + (len(left) < RANKS)
            assert all(one.equal(oracle) for one in found)


def _compiled_before(rank: int, calls: list[dict[str, Any]]) -> str:
    """A compiled call that knows nothing of the shrink."""
    function = COMPILED.get("call")
    given = worlds.with_groups(rank, calls[rank])
    if function is None:

        def dispatch(x: torch.Tensor) -> Any:
            return ascend_moe.npu_moe_distribute_dispatch_v2(**{**given, "x": x})

        function = COMPILED["call"] = torch.compile(dispatch, fullgraph=True, backend="aot_eager")
    try:
        function(given["x"])
    except PeerError as error:
        return str(error)
    return "rows"


COMPILED: dict[str, Any] = {}


@pytest.mark.ci
def test_a_graph_made_before_names_the_shrink(memory_world: worlds.World):
    left = [0, 1, 2, 3]
    assert memory_world.run(_compiled_before, calls_of(range(RANKS))) == ["rows"] * RANKS
    dies(memory_world, [4], left)
    shrinks(memory_world, [4], left)
    for text in memory_world.run(_compiled_before, calls_of(range(RANKS)), ranks=left):
        assert "ascend_moe.shrink" in text


def _shrink_without_memory(rank: int, dead: Sequence[int], poor: int) -> list[int]:
    error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    if rank != poor:
        return _shrink(rank, dead)
    with mock.patch.object(fresh.memory, "create", side_effect=error):
        return _shrink(rank, dead)


def test_no_memory_for_a_fresh_context_is_told_and_tried_again(memory_world: worlds.World):
    works(memory_world, range(RANKS))
    left = [1, 2, 3, 4]
    dies(memory_world, [0], left)
    for rank, error in zip(
        left, memory_world.outcomes(_shrink_without_memory, [0], 1, ranks=left), strict=True
    ):
        assert isinstance(error, OSError)
        assert error.errno == errno.ENOMEM
        assert rank == 1 or "rank 1 has no memory for a fresh context" in str(error)
    shrinks(memory_world, [0], left)
    works(memory_world, left)


def test_a_refused_call_says_nothing_of_the_group(world: worlds.World):
    """Ranks that disagree about the experts are refused; what all agreed about before still counts."""
    works(world, range(RANKS))
    calls = calls_of(range(RANKS))
    calls[2]["moe_expert_num"] = 4 * RANKS
    for error in world.outcomes(_round_trip, calls, None):
        assert isinstance(error, ConstraintError)
        assert "X-40" in str(error)
    works(world, range(RANKS))
    dies(world, [4], [0, 1, 2, 3])
    shrinks(world, [4], [0, 1, 2, 3])
    works(world, [0, 1, 2, 3])
