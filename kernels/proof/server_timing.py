"""How long the hierarchy kernels take in the timed simulator: servers of A2, rows between them by network card."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ascend_moe.contract.signature import with_defaults

from .arguments import parameters
from .cards import Wire
from .machine import Machine
from .server_programs import PER_SERVER
from .servers import ServerGroup
from .simulator import Schedule, Simulator, library
from .timing import EXPERTS, HIDDEN, TOPK, Timing, balanced_ids, rows_of, run
from .tuning import checked_in

SERVERS, BATCHES = (2, 4, 8), (8, 64)


@dataclass(frozen=True)
class ServerShape:
    """A decode step over several servers of A2."""

    operator: str
    batch: int
    servers: int

    @property
    def name(self) -> str:
        return f"{self.operator} BS {self.batch} servers {self.servers}"


class _Group(ServerGroup):
    """Tensors without content, on the meta device, are memory that nobody has written."""

    def _tensor(self, rank: int, tensor: Tensor | None, name: str) -> int:
        if tensor is None or tensor.device.type != "meta":
            return super()._tensor(rank, tensor, name)
        return self.simulator.alloc(rank, tensor.numel() * tensor.element_size(), name)


def cores_of(shape: ServerShape, machine: Machine) -> int:
    """On how many cores the host library launches this."""
    ranks = shape.servers * PER_SERVER[machine.product]
    chosen = checked_in(machine.product).choose(
        f"hierarchy_{shape.operator}", ranks, TOPK * shape.batch
    )
    return min(chosen or machine.cores, machine.cores)


def wire_us(shape: ServerShape, machine: Machine) -> float:
    """The bytes of one rank over its card alone: each token once for every other server that it goes to.

    Balanced routes of K 8 meet every server, up to eight.
    """
    row = HIDDEN * (1 if shape.operator == "dispatch_int8" else 2)
    return shape.batch * (shape.servers - 1) * row / machine["card_rate"] / 1000


def simulate_servers(shape: ServerShape, machine: Machine, *, cores: int | None = None) -> Timing:
    """One launch of the operator on every rank, behind what has to come before it."""
    per_server = PER_SERVER[machine.product]
    ranks = shape.servers * per_server
    x = torch.empty(shape.batch, HIDDEN, dtype=torch.bfloat16, device="meta")
    calls: list[dict[str, Any]] = [
        {
            "expert_ids": balanced_ids(rank, shape.batch, ranks),
            "expert_scales": torch.ones(shape.batch, TOPK),
            "ep_world_size": ranks,
            "ep_rank_id": rank,
            "moe_expert_num": EXPERTS,
            "global_bs": shape.batch * ranks,
            "comm_alg": "hierarchy",
        }
        for rank in range(ranks)
    ]
    quant = 2 if shape.operator == "dispatch_int8" else 0
    dispatches = [{**call, "x": x, "quant_mode": quant} for call in calls]
    rows = torch.empty(rows_of(dispatches[0]), HIDDEN, dtype=torch.bfloat16, device="meta")
    combines = [
        {**call, "expand_x": rows, "assist_info_for_combine": None, "ep_send_counts": None}
        for call in calls
    ]
    with Simulator(Schedule(unchecked=True, max_steps=1 << 40)) as simulator:
        simulator.time(machine)
        window = _window_bytes(dispatches[0], combines[0], shape.servers, per_server)
        group = _Group(
            simulator,
            ranks,
            window,
            Wire(depth=128),
            product=machine.product,
            cores=cores or cores_of(shape, machine),
        )
        run(simulator)
        results: Sequence[Any] = group.dispatch(dispatches)
        if shape.operator == "combine":
            run(simulator)
            results = group.combine(combines, results)
        run(simulator)
        return Timing.of(simulator, results)


def _window_bytes(
    dispatch: dict[str, Any], combine: dict[str, Any], servers: int, per_server: int
) -> int:
    sizes = []
    for op, call in (("dispatch", dispatch), ("combine", combine)):
        given = parameters(op, with_defaults(op, {"group_ep": "ep", **call}))
        size_of = getattr(library(), f"moe_hierarchy_{op}_bytes")
        sizes.append(size_of(ctypes.byref(given), servers, per_server))
    return library().moe_hierarchy_window_bytes(*sizes)
