"""How long the kernels take in the timed simulator: all ranks in one process, nothing checked, rows of zeros.

Every rank has the same work (`balanced_ids`), and all begin at the same moment, as nobody else is on the links. Only
the routes decide what a kernel does, so the rows' bytes are never made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ascend_moe.contract.elastic import Elastic
from ascend_moe.contract.shapes import World
from ascend_moe.contract.signature import with_defaults

from .failures import records_of
from .group import NONCE, KernelGroup, output_shapes, window_bytes
from .machine import Machine
from .simulator import Schedule, Simulator
from .tuning import Tuning, over

HIDDEN, TOPK, EXPERTS = 7168, 8, 256
OPERATORS = ("dispatch_int8", "dispatch_bf16", "combine")
BATCHES, EP_SIZES = (8, 64, 128), (8, 32)


@dataclass(frozen=True)
class Shape:
    """A decode step of DeepSeek-V3: H 7168, K 8, 256 experts."""

    operator: str
    batch: int
    ep: int
    gone: tuple[int, ...] | None = None
    """Ranks of the group that are not left, as the others know by elastic_info; None: there is no such tensor."""

    @property
    def name(self) -> str:
        without = f" without {self.gone}" if self.gone else ""
        return f"{self.operator} BS {self.batch} ep {self.ep}{without}"

    @property
    def int8(self) -> bool:
        return self.operator == "dispatch_int8"

    @property
    def row_bytes(self) -> int:
        return HIDDEN * (1 if self.int8 else 2)


@dataclass(frozen=True)
class Timing:
    """Microseconds of one launch on every rank, the launch itself not counted."""

    per_rank: tuple[float, ...]

    @property
    def us(self) -> float:
        """Until the last rank is done."""
        return max(self.per_rank)

    @classmethod
    def of(cls, simulator: Simulator, results: Sequence[Any], windows: Sequence[int]) -> Timing:
        """Of launches that have ended, on ranks with these windows; none may have given up."""
        for rank, window in enumerate(windows):
            if named := records_of(simulator, window):
                raise RuntimeError(f"rank {rank} gives up: {named[0]}")
        times = [simulator.timing(result.launch) for result in results]
        return cls(tuple(time["ended_us"] - time["began_us"] for time in times))


def cores_of(shape: Shape, machine: Machine, tuning: Tuning | None = None) -> int:
    """On how many cores the host library launches this, with a file of ``ASCEND_MOE_TUNING`` if one is given."""
    return chosen_cores(shape.operator, shape.ep, shape.batch, machine, tuning)


def chosen_cores(
    operator: str, ranks: int, batch: int, machine: Machine, tuning: Tuning | None
) -> int:
    """The same by the operator's name in the tables, for any kernels."""
    chosen = over(tuning, machine.product).choose(operator, ranks, TOPK * batch)
    return min(chosen or machine.cores, machine.cores)


def balanced_ids(rank: int, batch: int, ep: int, local: int | None = None) -> Tensor:
    """Experts of every token of a rank: over all tokens the same number of rows for every destination."""
    local = local or EXPERTS // ep
    step = max(ep // TOPK, 1)
    slots = torch.arange(TOPK)
    tokens = torch.arange(batch).unsqueeze(1)
    destination = (rank + 1 + tokens + slots * step) % ep
    # Two slots of a token that meet on a rank, in small groups, are for different experts there.
    expert = (tokens // step + slots * step // ep + rank) % local
    return (destination * local + expert).to(torch.int32)


class _Group(KernelGroup):
    """Tensors without content, on the meta device, are memory that nobody has written."""

    def _tensor(self, rank: int, call: Mapping[str, Any], name: str) -> int:
        tensor = call[name]
        if tensor is None or tensor.device.type != "meta":
            return super()._tensor(rank, call, name)
        return self.simulator.alloc(rank, tensor.numel() * tensor.element_size(), name)


def _calls(shape: Shape) -> list[dict[str, Any]]:
    """What the calls of both operators have in common, of every rank that is left; routes are in new numbers."""
    local = EXPERTS // shape.ep
    elastic = _elastic(shape)
    left = elastic.old_ranks if elastic else range(shape.ep)
    words = torch.tensor(elastic.words(), dtype=torch.int32) if elastic else None
    return [
        {
            "expert_ids": balanced_ids(new, shape.batch, len(left), local),
            "ep_world_size": shape.ep,
            "ep_rank_id": old,
            "moe_expert_num": EXPERTS,
            "global_bs": shape.batch * shape.ep,
            "elastic_info": words,
        }
        for new, old in enumerate(left)
    ]


def _elastic(shape: Shape) -> Elastic | None:
    if shape.gone is None:
        return None
    world = World.of(
        ep_world_size=shape.ep,
        moe_expert_num=EXPERTS,
        shared_expert_num=1,
        shared_expert_rank_num=0,
    )
    return Elastic.of_survivors(world, shape.gone)


def simulate(
    shape: Shape,
    machine: Machine,
    *,
    cores: int | None = None,
    trace: Path | None = None,
    traced_ranks: int = 1,
) -> Timing:
    """One launch of the operator on every rank, behind what has to come before it.

    ``cores``: by default as many as the host library would launch it on.
    """
    calls = _calls(shape)
    x = torch.empty(shape.batch, HIDDEN, dtype=torch.bfloat16, device="meta")
    dispatches = [{**call, "x": x, "quant_mode": 2 if shape.int8 else 0} for call in calls]
    rows = torch.empty(rows_of(dispatches[0]), HIDDEN, dtype=torch.bfloat16, device="meta")
    combines = [
        {
            **call,
            "expand_x": rows,
            "expert_scales": torch.ones(shape.batch, TOPK),
            "assist_info_for_combine": None,
            "ep_send_counts": None,
        }
        for call in calls
    ]
    window = window_bytes([("dispatch", dispatches[0]), ("combine", combines[0])])
    with Simulator(Schedule(unchecked=True, max_steps=1 << 40)) as simulator:
        simulator.time(machine)
        number = cores or cores_of(shape, machine)
        group = _Group(simulator, shape.ep, window, cores=number, opened=False)
        group.open(NONCE, _elastic(shape))
        run(simulator)
        results: Any = group.dispatch(dispatches)
        if shape.operator == "combine":
            run(simulator)
            results = group.combine(combines, results)
        if trace is not None:
            simulator.trace(traced_ranks)
        run(simulator)
        if trace is not None:
            simulator.write_trace(trace)
        return Timing.of(simulator, results, group.windows)


def rows_of(dispatch: Mapping[str, Any]) -> int:
    """Rows that the outputs of a dispatch have room for."""
    filled = with_defaults("dispatch", {"group_ep": "ep", **dispatch})
    return output_shapes(filled)["expand_x"].shape[0]


def run(simulator: Simulator) -> None:
    """All that is enqueued, to its end."""
    if not simulator.run():
        raise RuntimeError(f"the simulation did not end:\n{simulator.deadlock}")
    if simulator.findings:
        raise RuntimeError(f"the simulation found {simulator.findings[0]}")
