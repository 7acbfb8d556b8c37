"""After a fault of the program around the calls: no wrong row, no dead process, and the reason is named."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import small_calls
import torch
import torch.distributed as dist
import worlds

import ascend_moe
from ascend_moe.contract.errors import ConstraintError, ConstraintWarning, PeerError
from ascend_moe.cpu.distributed.exchange import Exchange
from ascend_moe.cpu.distributed.peers import state_of
from ascend_moe.reference import combine_world, dispatch_world

RANKS, VICTIM = 3, 1
CALLS = small_calls.make_calls(RANKS)
WANTED = dispatch_world(CALLS)
BACK = small_calls.homeward(CALLS, WANTED)
SUMS = combine_world(BACK)


class Stop(BaseException):
    """What a signal raises here."""


def _stop(*_: object) -> None:
    raise Stop


def _dispatch(rank: int) -> str:
    """What came of a call: "right", "wrong", or an exception."""
    outputs = worlds.dispatch(rank, CALLS)
    return "right" if small_calls.same(outputs, WANTED[rank]) else "wrong"


def _outcomes(rank: int, calls: int) -> list[Any]:
    return [_outcome(_dispatch, rank) for _ in range(calls)]


def _outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Stop:
        return "stopped"
    except Exception as error:
        return error


def _interrupted(rank: int, after: float) -> list[Any]:
    """Each rank makes calls until one fails; a signal comes to the victim meanwhile. Then a few more."""
    signal.signal(signal.SIGALRM, _stop)
    dist.barrier()
    if rank == VICTIM:
        signal.setitimer(signal.ITIMER_REAL, after)
    found: list[Any] = []
    while all(one == "right" for one in found):
        found += _outcomes(rank, 1)
    return found + _outcomes(rank, 3)


@pytest.mark.parametrize("after", [0.001, 0.013])
def test_a_signal_in_the_middle_of_a_call_ends_the_group_and_names_the_rank(
    environment: dict[str, str], after: float
):
    variables = environment | {"ASCEND_MOE_TIMEOUT_S": "5"}
    with worlds.world(RANKS, environments=[variables]) as world:
        by_rank = world.run(_interrupted, after)
    for rank, found in enumerate(by_rank):
        assert "wrong" not in found
        *_, last = found
        if rank == VICTIM and not isinstance(last, PeerError):
            continue  # between two calls
        assert isinstance(last, PeerError), (rank, found)
        assert last.ranks == (VICTIM,), (rank, found)


def _first_call(rank: int) -> Any:
    if rank == VICTIM:
        with mock.patch.object(Exchange, "_complete", side_effect=Stop):
            return _outcomes(rank, 1) + _outcomes(rank, 1)
    began = time.monotonic()
    return [*_outcomes(rank, 2), time.monotonic() - began]


def test_in_the_first_call_as_well_and_the_peers_learn_it_at_once(environment: dict[str, str]):
    with worlds.world(RANKS, environments=[environment]) as world:
        by_rank = world.run(_first_call)
    assert by_rank[VICTIM][0] == "stopped"
    assert "was interrupted in a call (Stop)" in str(by_rank[VICTIM][1])
    for rank in (0, 2):
        *errors, seconds = by_rank[rank]
        assert [error.ranks for error in errors] == [(VICTIM,)] * 2
        assert seconds < 30  # nobody waited for the time limit


def _by_threads(rank: int, threads: int, calls: int) -> Any:
    found = _outcomes(rank, 2)
    dist.barrier()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        work = [
            threading.Thread(target=lambda: found.extend(_outcomes(rank, calls)))
            for _ in range(threads)
        ]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join(60)
    found += _outcomes(rank, 1)
    return found, [str(one.message) for one in said if one.category is ConstraintWarning]


def test_threads_are_served_in_turn_and_it_is_said_once(environment: dict[str, str]):
    with worlds.world(RANKS, environments=[environment | {"ASCEND_MOE_TIMEOUT_S": "10"}]) as world:
        for found, said in world.run(_by_threads, 3, 20):
            assert found == ["right"] * 63
            assert len(said) == 1
            assert "a second thread calls on this group" in said[0]


@pytest.mark.parametrize(
    ("variables", "allowed"),
    [({}, False), ({"ASCEND_MOE_CPU_THREADS": "ordered"}, True)],
)
def test_under_full_checks_a_second_thread_declares_its_order(variables: Any, allowed: bool):
    with worlds.world(RANKS, environments=[variables | {"ASCEND_MOE_CHECK": "full"}]) as world:
        for found, said in world.run(_by_threads, 1, 1):
            assert not said
            assert [found[0], found[1], found[3]] == ["right"] * 3
            assert found[2] == "right" if allowed else isinstance(found[2], ConstraintError)


def _with_a_child(rank: int) -> list[Any]:
    """A forked child tries to call, lets go of all it has, and ends."""
    found = _outcomes(rank, 2)
    if rank == VICTIM:
        child = os.fork()
        if not child:
            try:
                (outcome,) = _outcomes(rank, 1)
                state_of(worlds.GROUPS["ep"]).windows = None
                os._exit(int("was forked" not in str(outcome)))
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
    dist.barrier()
    return found + _outcomes(rank, 2)


def test_a_forked_child_does_not_speak_for_its_parent(environment: dict[str, str]):
    with worlds.world(RANKS, environments=[environment]) as world:
        assert world.run(_with_a_child) == [["right"] * 4] * RANKS


CHILD = """
import os, sys
import torch.distributed as dist
import ascend_moe, small_calls
rank = int(os.fork() == 0)
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=2)
call = small_calls.make_calls(2)[rank] | {"group_ep": ascend_moe.hccl_comm_name(None, rank)}
ascend_moe.npu_moe_distribute_dispatch_v2(**call)
child = os.fork()
if not child:
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
ascend_moe.npu_moe_distribute_dispatch_v2(**call)
dist.barrier()
"""


def test_a_forked_child_ends_as_programs_end(environment: dict[str, str], tmp_path: Path):
    """Torch alone hangs there."""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path / "store"],
        env=os.environ | environment | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    assert done.stdout == b"7\n7\n"


def _in_and_out_of_inference_mode(rank: int, quantised: int) -> None:
    back = [call | {"comm_quant_mode": quantised} for call in BACK]
    for inside in (True, True, False, False, True):
        with torch.inference_mode(inside):
            assert _dispatch(rank) == "right"
            assert worlds.combine(rank, back).equal(combine_world(back)[rank])


def test_memory_is_not_bound_to_the_mode_of_the_first_call(environment: dict[str, str]):
    for quantised in (0, 2):
        with worlds.world(RANKS, environments=[environment]) as world:
            world.run(_in_and_out_of_inference_mode, quantised)


SAID = ("number", "descriptor", "offset", "size")


def _changed(said: tuple[int, ...], lie: dict[str, int]) -> tuple[int, ...]:
    return tuple((dict(zip(SAID, said, strict=True)) | lie).values())


def _lies_about_its_memory(rank: int, lie: Any) -> Any:
    """The victim's rows lie in memory of its own; what it says of that is wrong at last."""
    assert _dispatch(rank) == "right"
    call = BACK[rank]
    rows = ascend_moe.empty_expert_outputs(
        *call["expand_x"].shape, group_ep=worlds.with_groups(rank, {})["group_ep"]
    )
    calls = [one | {"expand_x": rows.copy_(call["expand_x"])} for one in BACK]
    calls[rank] = call | {"expand_x": rows}
    for _ in range(2):
        assert worlds.combine(rank, calls).equal(SUMS[rank])
    in_place = state_of(worlds.GROUPS["ep"]).windows.in_place
    if rank == VICTIM:
        real = in_place.find
        in_place.find = lambda *where: _changed(real(*where), lie)
    return worlds.combine(rank, calls)


@pytest.mark.parametrize(
    "lie",
    [
        {"offset": 2**63 - 4096},
        {"offset": 1 << 40, "size": 1 << 62},
        {"number": 99, "offset": 0, "size": 1 << 62},
        {"number": 98, "descriptor": 1, "offset": 0},
    ],
)
def test_what_a_peer_says_of_its_memory_is_checked(lie: Any):
    with worlds.world(RANKS, environments=[{"ASCEND_MOE_TIMEOUT_S": "5"}]) as world:
        outcomes = world.outcomes(_lies_about_its_memory, lie)
    assert [type(one) for one in outcomes] == [PeerError] * RANKS
    assert {one.ranks for one in outcomes} == {(VICTIM,)}


def _absurd_sizes(rank: int) -> list[Any]:
    found: list[Any] = _outcomes(rank, 1)
    group = worlds.with_groups(rank, {})["group_ep"]
    for sizes in ((-1, 4), (4, -1), (1 << 40, 1 << 12), (1 << 62, 1 << 62)):
        make = functools.partial(ascend_moe.empty_expert_outputs, group_ep=group)
        found.append(type(_outcome(make, *sizes)))
    return found + _outcomes(rank, 1)


def test_absurd_sizes_are_refused(environment: dict[str, str]):
    with worlds.world(RANKS, environments=[environment]) as world:
        wanted = ["right", ValueError, ValueError, OSError, OSError, "right"]
        assert world.run(_absurd_sizes) == [wanted] * RANKS
