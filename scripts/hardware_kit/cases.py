"""The cases, the same list in every process: the vendor's golden data, a random sweep, and shapes to measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
from golden import PATHS, SERVER_PATHS, GoldenCase
from torch import Tensor

from ascend_moe import required_hccl_buffsize
from ascend_moe.contract.limits import RANKS_PER_SERVER
from kernels.proof.mesh import random_mesh_shape
from kernels.proof.programs import layer_program, received_rows
from kernels.proof.server_programs import SMALL, ServerShape, random_server_shape, server_program
from kernels.proof.shapes import Shape, random_shape, random_shape_a2

SEED = 20261124
GOLDEN, SWEEP, TIMING, TUNING = "golden", "sweep", "timing", "tuning"
MEASURED = Shape(ranks=0, max_batch=0, hidden=7168, topk=8, local_experts=16)
MEASURED_BATCHES = (8, 64, 128)
WINDOW_MB_OF_SERVERS, WINDOW_MB_OF_SERVERS_TUNED = 200, 1024
WIDEST_SWEEP = {"max_bs": 8, "hidden": 8192, "topk": 16, "local_experts": 13}


@dataclass(frozen=True)
class Case:
    """One thing to do on the first ``ranks`` ranks (with TP two per EP rank)."""

    kind: str
    name: str
    ranks: int
    tp: int
    body: Any  # a GoldenCase, or the Shape of one layer

    @property
    def hierarchy(self) -> bool:
        """Else full mesh; a group runs one of them."""
        if isinstance(self.body, GoldenCase):
            return self.body.servers > 0
        return isinstance(self.body, ServerShape)


def most_ranks(product: str) -> int:
    """Of one server."""
    return RANKS_PER_SERVER if product == "A2" else 16


def all_cases(product: str, world: int, sweep: int, *, short: bool, servers: int = 1) -> list[Case]:
    """What ``world`` ranks can play; ``short`` measures the smallest batch only."""
    if servers > 1:
        return [*_server_golden(product, world), *_server_sweep(product, world, sweep)]
    return [
        *_golden(product, world),
        *_sweep(product, world, sweep),
        *_timing(product, world, short),
    ]


def tuning_cases(product: str, world: int, *, short: bool, servers: int = 1) -> list[Case]:
    """Shapes of a decode step on all ranks, to be measured on several numbers of cores."""
    kind = ServerShape if servers > 1 else Shape
    shapes = [
        kind(
            ranks=world,
            max_batch=batch,
            hidden=MEASURED.hidden,
            topk=MEASURED.topk,
            local_experts=MEASURED.local_experts,
            quant=quant,
            product=product,
        )
        for batch in MEASURED_BATCHES[: 1 if short else None]
        for quant in (False, True)
    ]
    return [
        Case(TUNING, f"bs{shape.max_batch} {'int8' if shape.quant else 'bf16'}", world, 1, shape)
        for shape in shapes
    ]


def _golden(product: str, world: int) -> Iterator[Case]:
    for path in PATHS:
        case = GoldenCase.load(path)
        if case.product == product and case.ranks <= world:
            yield Case(GOLDEN, case.name, case.ranks, case.tp, case)


def _shapes(product: str, world: int) -> list[Shape]:
    """Of all ranks, with each feature that changes the routes."""
    whole = Shape(ranks=world, max_batch=8, hidden=7168, topk=min(8, 2 * world), local_experts=2)
    masked = replace(whole, quant=True, smooth=True, mask=2, dtype=torch.float16)
    if product == "A2":
        shapes = [
            whole,
            replace(whole, packed=True, hidden=1024),
            masked,
            replace(whole, uneven=True, skewed=True, hidden=32),
            replace(whole, zero_experts=1, copy_experts=1, quant=True),
        ]
        return [replace(shape, product="A2") for shape in shapes]
    shapes = [
        whole,
        replace(whole, quant=True, comm_quant=True),
        masked,
        replace(whole, uneven=True, skewed=True, hidden=1031),
    ]
    if world > 2:
        shared = {"shared_experts": 1, "shared_ranks": 2, "topk": min(8, 2 * (world - 2))}
        shapes.append(replace(whole, **shared))
    return shapes


def _sweep(product: str, world: int, count: int) -> Iterator[Case]:
    """Shapes of all ranks first, then random ones."""
    shapes = _shapes(product, world)
    random = Random(SEED)
    while len(shapes) < count:
        shape = random_shape_a2(random) if product == "A2" else random_shape(random)
        if shape.ranks * shape.tp <= world:
            shapes.append(shape)
    for number, shape in enumerate(shapes[:count]):
        yield Case(SWEEP, f"sweep{number:03d}", shape.ranks * shape.tp, shape.tp, shape)


def _server_golden(product: str, world: int) -> Iterator[Case]:
    """Results of the vendor's layered kernels, and on A2 of those of full mesh."""
    for path in (*SERVER_PATHS, *PATHS):
        case = GoldenCase.load(path)
        if case.product == product and (case.ranks, case.tp) == (world, 1):
            yield Case(GOLDEN, case.name, case.ranks, 1, case)


def _server_sweep(product: str, world: int, count: int) -> Iterator[Case]:
    """Every mode of full mesh (on A2) and of hierarchy (on whole servers) first, then random shapes."""
    shapes: list[Shape] = []
    drawn: list[Callable[[Random], Shape]] = []
    if product == "A2":
        mesh = Shape(world, max_batch=3, hidden=64, topk=4, local_experts=2, product="A2")
        shapes += [mesh, replace(mesh, quant=True, smooth=True, mask=2)]
        drawn.append(random_mesh_shape if world > RANKS_PER_SERVER else random_shape_a2)
    if world == most_ranks(product) * 2:
        hidden = 1024 if product == "A3" else SMALL.hidden
        whole = replace(SMALL, product=product, ranks=world, hidden=hidden)
        shapes += [
            whole,
            replace(whole, quant=True, comm_quant=True),
            replace(whole, dtype=torch.float16, cumulative=True, skewed=True),
            replace(whole, hidden=7168, topk=8, max_batch=8),
        ]
        drawn.append(random_server_shape)
    random = Random(SEED)
    while len(shapes) < count:
        shape = random.choice(drawn)(random)
        if (shape.product, shape.ranks) == (product, world):
            shapes.append(shape)
    for number, shape in enumerate(shapes[:count]):
        way = "hierarchy" if isinstance(shape, ServerShape) else "mesh"
        yield Case(SWEEP, f"{way}{number:03d}", world, 1, shape)


def _timing(product: str, world: int, short: bool) -> Iterator[Case]:
    for batch in MEASURED_BATCHES[: 1 if short else None]:
        for quant in (False, True):
            shape = replace(MEASURED, ranks=world, max_batch=batch, quant=quant, product=product)
            yield Case(TIMING, f"bs{batch} {'int8' if quant else 'bf16'}", world, 1, shape)


def window_mb(product: str, world: int, cases: list[Case], implementation: str) -> int:
    """The HCCL_BUFFSIZE that all cases need, with every golden case below the sweep's widest.

    On A2 ours need no more than what CANN's kernels are advised to have. Layers of several servers are small.
    """
    if cases[0].hierarchy or world > most_ranks(product):
        return WINDOW_MB_OF_SERVERS_TUNED if cases[0].kind == TUNING else WINDOW_MB_OF_SERVERS
    batches = [case.body.max_batch for case in cases if case.kind in (TIMING, TUNING)]
    measured = {
        "max_bs": max(batches, default=1),
        "hidden": MEASURED.hidden,
        "topk": MEASURED.topk,
        "local_experts": MEASURED.local_experts,
    }
    needed = 200
    for shape in (measured, WIDEST_SWEEP):
        size = required_hccl_buffsize(
            product=product,
            max_bs=shape["max_bs"],
            hidden=min(shape["hidden"], MEASURED.hidden if product == "A2" else 8192),
            topk=shape["topk"],
            ep_world_size=world,
            moe_expert_num=shape["local_experts"] * world,
            implementation=implementation if product == "A3" else "stock",
        )
        needed = max(needed, size.mb)
    return needed


def seed_of(case: Case) -> int:
    """Of the tensors of a sweep or timing case."""
    return SEED + sum(case.name.encode())


def layer(case: Case) -> Any:
    """The dispatch and the combine of a sweep or timing case, with what the oracle says."""
    make = server_program if isinstance(case.body, ServerShape) else layer_program
    return make(case.name, case.body, seed_of(case))


def specified(
    case: Case, expected: Any, call: Mapping[str, Any], output: list[Tensor]
) -> dict[str, Tensor]:
    """The parts of dispatch's outputs that the documents specify: nothing behind the received rows."""
    own, rows = received_rows(expected, call)
    if isinstance(
        case.body, ServerShape
    ):  # behind the counts each implementation has tables of its own
        return {
            "expand_x": output[0][:rows],
            "dynamic_scales": output[1][: rows if case.body.quant else 0],
            "expert_token_nums": output[3],
            "ep_recv_counts": output[4][: call["moe_expert_num"]],
            "expand_scales": output[6][:rows],
        }
    tp = call.get("tp_world_size") == 2
    return {
        "expand_x": output[0][:rows],
        "dynamic_scales": output[1][: rows if case.body.quant or case.body.packed else 0],
        # On A2 ours have a handle of their own, which only combine judges.
        "assist_info_for_combine": output[2][: 0 if case.body.product == "A2" else 3 * own],
        "expert_token_nums": output[3],
        "ep_recv_counts": output[4][: len(expected.ep_recv_counts)],
        "tp_recv_counts": output[5][: 2 if tp else 0],
    }


def active_rows(call: Mapping[str, Any], output: Tensor) -> Tensor:
    """Combine's rows of active tokens: the stock kernel does not write the others."""
    mask = call.get("x_active_mask")
    if mask is None:
        return output
    return output[mask if mask.dim() == 1 else mask.any(dim=1)]


def bits(tensor: Tensor) -> Tensor:
    """The bytes of a tensor, for comparisons that tell -0 from 0, and NaN from numbers but not from other NaN."""
    if tensor.is_floating_point():
        tensor = tensor.masked_fill(tensor.isnan(), torch.nan)
    return tensor.contiguous().view(-1).view(torch.uint8)
