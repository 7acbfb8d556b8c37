"""How long hierarchy and full mesh over servers of A2 take in the timed simulator, by window and network card."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ascend_moe.contract.signature import with_defaults

from .arguments import parameters
from .cards import Wire
from .machine import Machine
from .server_kernels import KERNELS
from .server_programs import PER_SERVER
from .servers import ServerGroup
from .simulator import Schedule, Simulator, library
from .timing import EXPERTS, HIDDEN, TOPK, Timing, balanced_ids, chosen_cores, rows_of, run
from .tuning import Tuning

SERVERS, BATCHES = {"hierarchy": (2, 4, 8), "mesh": (2, 4)}, (8, 64)


@dataclass(frozen=True)
class ServerShape:
    """A decode step over several servers of A2."""

    operator: str
    batch: int
    servers: int
    kernels: str = "hierarchy"

    @property
    def name(self) -> str:
        return f"{self.operator} BS {self.batch} servers {self.servers} {self.kernels}"

    @property
    def row_bytes(self) -> int:
        return HIDDEN * (1 if self.operator == "dispatch_int8" else 2)


@cache
def _group_type(kernels: str) -> type[ServerGroup]:
    class Group(KERNELS[kernels].group_type):  # type: ignore[name-defined,misc]
        """Tensors without content, on the meta device, are memory that nobody has written."""

        def _tensor(self, rank: int, tensor: Tensor | None, name: str) -> int:
            if tensor is None or tensor.device.type != "meta":
                return super()._tensor(rank, tensor, name)
            return self.simulator.alloc(rank, tensor.numel() * tensor.element_size(), name)

    return Group


def cores_of(shape: ServerShape, machine: Machine, tuning: Tuning | None = None) -> int:
    """On how many cores the host library launches this, with a file of ``ASCEND_MOE_TUNING`` if one is given."""
    ranks = shape.servers * PER_SERVER[machine.product]
    operator = f"{shape.kernels}_{shape.operator}"
    return chosen_cores(operator, ranks, shape.batch, machine, tuning)


def wire_us(shape: ServerShape, machine: Machine) -> float:
    """The bytes of one rank over its card alone: its rows that other servers need.

    In hierarchy a token goes to a server once, in full mesh once for each expert there.
    """
    per_server = PER_SERVER[machine.product]
    ids = balanced_ids(0, shape.batch, shape.servers * per_server)
    servers = ids * shape.servers // EXPERTS
    if shape.kernels == "mesh":
        rows = int((servers != 0).sum())
    else:
        rows = sum(len(set(of.tolist()) - {0}) for of in servers)
    return rows * shape.row_bytes / machine["card_rate"] / 1000


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
            "comm_alg": "hierarchy" if shape.kernels == "hierarchy" else "",
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
        window = _window_bytes(dispatches[0], combines[0], shape, per_server)
        group = _group_type(shape.kernels)(
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
        return Timing.of(simulator, results, group.inputs)


def _window_bytes(
    dispatch: dict[str, Any], combine: dict[str, Any], shape: ServerShape, per_server: int
) -> int:
    sizes = []
    for op, call in (("dispatch", dispatch), ("combine", combine)):
        given = parameters(op, with_defaults(op, {"group_ep": "ep", **call}))
        size_of = getattr(library(), f"moe_{shape.kernels}_{op}_bytes")
        sizes.append(size_of(ctypes.byref(given), shape.servers, per_server))
    return getattr(library(), f"moe_{shape.kernels}_window_bytes")(*sizes)
