"""GM bytes that the kernels move, for the shape the shipped kernels were counted with."""

from __future__ import annotations

from dataclasses import replace

from .execution import execute
from .programs import Program, Shape, layer_program
from .simulator import Schedule

SHAPE = Shape(ranks=4, max_batch=16, hidden=7168, topk=8, local_experts=8)
CORES = {"A3": 48, "A2": 40}
SHIPPED_MB = {"dispatch_bf16": 7.42, "dispatch_int8": 4.68, "combine": 5.74}
"""The stock kernels on this shape, counted the same way: read plus written per rank, polling excluded."""


def traffic_mb(product: str = "A3", seed: int = 0) -> tuple[dict[str, float], dict[str, float]]:
    """(moved, floor) in MB per rank, averaged over the ranks.

    The floor is the payload of the protocol alone, without index, flags and parameters: dispatch
    reads and stages every token once, reads and writes every received row once; combine reads every
    row, writes and reads it again if it changes rank, and writes every token once.
    """
    moved, floor = {}, {}
    shapes = {"dispatch_bf16": SHAPE, "dispatch_int8": replace(SHAPE, quant=True)}
    if product == "A2":
        shapes["dispatch_int4"] = replace(SHAPE, packed=True, hidden=SHAPE.hidden // 8)
    for name, shape in shapes.items():
        program = layer_program(name, replace(shape, product=product), seed)
        outcome = execute(program, Schedule(seed=seed), cores=CORES[product])
        if outcome.problems:
            raise AssertionError(outcome.problems[0])
        moved[name] = _average(outcome.counters[0])
        floor[name] = _dispatch_floor(program)
        if name == "dispatch_bf16":
            moved["combine"] = _average(outcome.counters[1])
            floor["combine"] = _combine_floor(program)
    return moved, floor


def _average(counters: list[dict[str, int]]) -> float:
    counted = (
        "read_own",
        "read_remote",
        "write_own",
        "write_remote",
        "scalar_read",
        "scalar_write",
    )
    return sum(rank[name] for rank in counters for name in counted) / len(counters) / 1e6


def _dispatch_floor(program: Program) -> float:
    total = 0
    for call, output in zip(program.steps[0].calls, program.steps[0].expected, strict=True):
        row = output.expand_x.shape[1] * output.expand_x.element_size()
        tokens = call["x"].shape[0]
        total += (
            tokens * call["x"].shape[1] * call["x"].element_size()
            + tokens * row
            + 2 * row * int(output.ep_recv_counts[-1])
        )
    return total / program.ranks / 1e6


def _combine_floor(program: Program) -> float:
    total = 0
    for rank, (call, output) in enumerate(
        zip(program.steps[0].calls, program.steps[0].expected, strict=True)
    ):
        rows = int(output.ep_recv_counts[-1])
        own = int((output.assist_info_for_combine[: 3 * rows].view(-1, 3)[:, 0] == rank).sum())
        total += (3 * (rows - own) + own + call["x"].shape[0]) * call["x"].shape[1] * 2
    return total / program.ranks / 1e6
