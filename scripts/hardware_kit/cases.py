"""The cases, the same list in every process: the vendor's golden data, a random sweep, and shapes to measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
from golden import PATHS, GoldenCase
from torch import Tensor

from ascend_moe import required_hccl_buffsize
from kernels.proof.programs import Shape, layer_program, random_shape, received_rows

SEED = 20261124
GOLDEN, SWEEP, TIMING = "golden", "sweep", "timing"
MEASURED = Shape(ranks=0, max_batch=0, hidden=7168, topk=8, local_experts=16)
MEASURED_BATCHES = (8, 64, 128)
WIDEST_SWEEP = {"max_bs": 8, "hidden": 8192, "topk": 16, "local_experts": 13}


@dataclass(frozen=True)
class Case:
    """One thing to do on the first ``ranks`` ranks (with TP two per EP rank)."""

    kind: str
    name: str
    ranks: int
    tp: int
    body: Any  # a GoldenCase, or the Shape of one layer


def all_cases(world: int, sweep: int, *, short: bool) -> list[Case]:
    """What ``world`` ranks can play; ``short`` measures the smallest batch only."""
    return [*_golden(world), *_sweep(world, sweep), *_timing(world, short)]


def _golden(world: int) -> Iterator[Case]:
    for path in PATHS:
        case = GoldenCase.load(path)
        if case.product == "A3" and case.ranks <= world:
            yield Case(GOLDEN, case.name, case.ranks, case.tp, case)


def _sweep(world: int, count: int) -> Iterator[Case]:
    """Shapes of all ranks first, with each feature that changes the routes; then random ones."""
    whole = Shape(ranks=world, max_batch=8, hidden=7168, topk=min(8, 2 * world), local_experts=2)
    shapes = [
        whole,
        replace(whole, quant=True, comm_quant=True),
        replace(whole, quant=True, smooth=True, mask=2, dtype=torch.float16),
        replace(whole, uneven=True, skewed=True, hidden=1031),
    ]
    if world > 2:
        shared = {"shared_experts": 1, "shared_ranks": 2, "topk": min(8, 2 * (world - 2))}
        shapes.append(replace(whole, **shared))
    random = Random(SEED)
    while len(shapes) < count:
        shape = random_shape(random)
        if shape.ranks * shape.tp <= world:
            shapes.append(shape)
    for number, shape in enumerate(shapes[:count]):
        yield Case(SWEEP, f"sweep{number:03d}", shape.ranks * shape.tp, shape.tp, shape)


def _timing(world: int, short: bool) -> Iterator[Case]:
    for batch in MEASURED_BATCHES[: 1 if short else None]:
        for quant in (False, True):
            shape = replace(MEASURED, ranks=world, max_batch=batch, quant=quant)
            yield Case(TIMING, f"bs{batch} {'int8' if quant else 'bf16'}", world, 1, shape)


def window_mb(world: int, cases: list[Case], implementation: str) -> int:
    """The HCCL_BUFFSIZE that all cases need, with every golden case below the sweep's widest."""
    batches = [case.body.max_batch for case in cases if case.kind == TIMING]
    measured = {
        "max_bs": max(batches, default=1),
        "hidden": MEASURED.hidden,
        "topk": MEASURED.topk,
        "local_experts": MEASURED.local_experts,
    }
    needed = 200
    for shape in (measured, WIDEST_SWEEP):
        size = required_hccl_buffsize(
            product="A3",
            max_bs=shape["max_bs"],
            hidden=shape["hidden"],
            topk=shape["topk"],
            ep_world_size=world,
            moe_expert_num=shape["local_experts"] * world,
            implementation=implementation,
        )
        needed = max(needed, size.mb)
    return needed


def seed_of(case: Case) -> int:
    """Of the tensors of a sweep or timing case."""
    return SEED + sum(case.name.encode())


def layer(case: Case) -> Any:
    """The dispatch and the combine of a sweep or timing case, with what the oracle says."""
    return layer_program(case.name, case.body, seed_of(case))


def specified(expected: Any, call: Mapping[str, Any], output: list[Tensor]) -> dict[str, Tensor]:
    """The parts of dispatch's outputs that the documents specify: nothing behind the received rows."""
    own, rows = received_rows(expected, call)
    tp = call.get("tp_world_size") == 2
    return {
        "expand_x": output[0][:rows],
        "dynamic_scales": output[1][: rows if call.get("quant_mode") else 0],
        "assist_info_for_combine": output[2][: 3 * own],
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
    """The bytes of a tensor, for comparisons that tell -0 from 0 and know NaN."""
    return tensor.contiguous().view(-1).view(torch.uint8)
