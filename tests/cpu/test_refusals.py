"""Whatever stops a call on one rank before it said anything is a ConstraintError there and, at once, on all others."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import pytest
import small_calls
import torch
import torch.distributed as dist
import worlds

import ascend_moe
from ascend_moe.contract.errors import ConstraintError
from ascend_moe.contract.signature import PARAMETERS
from ascend_moe.cpu.operators.session import Session
from ascend_moe.reference import combine_world, dispatch_world

RANKS, VICTIM = 3, 1
CALLS = {"dispatch": small_calls.make_calls(RANKS)}
WANTED = {"dispatch": dispatch_world(CALLS["dispatch"])}
CALLS["combine"] = small_calls.homeward(CALLS["dispatch"], WANTED["dispatch"])
WANTED["combine"] = [(one,) for one in combine_world(CALLS["combine"])]


@dataclass(frozen=True)
class Change:
    """Of the victim's call: arguments, variables, or that there is no memory while it is prepared."""

    arguments: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    without_memory: bool = False

    @contextlib.contextmanager
    def made_to(self, call: dict[str, Any]) -> Iterator[None]:
        call |= self.arguments
        refused = mock.patch.object(Session, "fast_call", side_effect=MemoryError)
        with (
            mock.patch.dict(os.environ, self.variables),
            refused if self.without_memory else contextlib.nullcontext(),
        ):
            yield


def _outcomes(rank: int, op: str, calls: Any, changes: list[Change]) -> list[tuple[Any, float]]:
    """One call for each change, which only the victim makes: what came of it, and in which time."""
    run, found = getattr(ascend_moe, f"npu_moe_distribute_{op}_v2"), []
    for change in changes:
        call = worlds.with_groups(rank, calls[rank])
        dist.barrier()
        began = time.monotonic()
        try:
            with change.made_to(call) if rank == VICTIM else contextlib.nullcontext():
                outcome = run(**call)
        except Exception as error:
            outcome = error
        found.append((outcome, time.monotonic() - began))
    return found


def _wrong_values(op: str) -> Iterator[Change]:
    sparse = torch.eye(4).to_sparse()
    complex_ = torch.zeros(4, 2, dtype=torch.complex64)
    for parameter in PARAMETERS[op]:
        if parameter.name == "group_ep":
            continue  # whom to tell is then unknown
        wrong: list[Any] = [[], 1.5]
        if parameter.is_tensor:
            wrong += [3, "text", sparse] + ([None] if parameter.required else [])
            if parameter.name not in ("tp_send_counts", "expand_scales"):  # not read here
                wrong.append(complex_)
        elif parameter.type == "str":
            wrong += [3, None]
        elif parameter.type == "int":
            wrong += ["text", None, torch.zeros(2), 1 << 70, -(1 << 63)]
        yield from (Change({parameter.name: value}) for value in wrong)


def _judge(world: worlds.World, op: str, changes: list[Change]) -> None:
    by_rank = world.run(_outcomes, op, CALLS[op], changes)
    for number, change in enumerate(changes):
        for rank in range(RANKS):
            outcome, seconds = by_rank[rank][number]
            assert isinstance(outcome, ConstraintError), (rank, change, outcome)
            assert seconds < 30, (rank, change, seconds)  # nobody waited for the time limit
            assert rank == VICTIM or f"rank {VICTIM}" in str(outcome), (rank, change, outcome)
    again = world.run(_outcomes, op, CALLS[op], [Change()])
    for rank, [(outcome, _)] in enumerate(again):
        outputs = outcome if isinstance(outcome, tuple) else (outcome,)
        assert small_calls.same(outputs, WANTED[op][rank])


@pytest.mark.parametrize("op", ["dispatch", "combine"])
def test_arguments_of_other_types(world: worlds.World, op: str):
    _judge(world, op, list(_wrong_values(op)))


def test_variables_and_memory(world: worlds.World):
    names = ["CHECK", "PRODUCT", "CONTRACT", "TIMEOUT_S", "CPU_TRANSPORT"]
    changes = [Change(variables={f"ASCEND_MOE_{name}": "nonsense"}) for name in names]
    not_remembered = {"expert_token_nums_type": 0}
    _judge(world, "dispatch", [*changes, Change(not_remembered, without_memory=True)])
