"""Runs a program on simulated ranks under one schedule and judges everything that came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .group import (
    CONTROL_BYTES,
    MAX_RANKS,
    NONCE,
    KernelGroup,
    tp_nonce,
    tp_window_bytes,
    window_bytes,
)
from .programs import Program, Step, counts_written, received_rows
from .simulator import Schedule, Simulator

MEET_OFFSET, MEET_MAGIC = 76 << 10, 0x5445454D

Judge = Callable[[KernelGroup, Step, int, Any], str]
"""What is wrong with one rank's result of a step; an empty string if nothing."""


@dataclass
class Outcome:
    """What one run showed; an empty ``problems`` is a pass."""

    findings: list[dict[str, Any]]
    deadlock: str
    mismatches: list[str]
    counters: list[list[dict[str, Any]]] = field(default_factory=list)
    """Per step and rank."""
    sites: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    """How many ranks have an error record, where that is allowed."""
    named: list[list[tuple[int, int]]] = field(default_factory=list)
    """Per rank why it gave up and because of whom, where that is told."""
    steps: int = 0
    deaths: list[str] = field(default_factory=list)
    """In which kernel and where ranks died, one after the other; empty for who had ended all."""

    @property
    def problems(self) -> list[str]:
        found = [
            f"{f['kind']} in {f['kernel']} at {f['where']}, rank {f['rank']} core {f['core']}: {f['text']}"
            for f in self.findings
        ]
        if self.deadlock:
            found.append("deadlock: " + self.deadlock)
        return found + self.mismatches


def old_window(seed: int) -> bytes:
    """What an earlier context may have left: its meeting, and tagged blocks of small epochs under another nonce."""
    random, blocks = np.random.default_rng(seed), CONTROL_BYTES // 32
    words = random.integers(64, size=(blocks, 8), dtype=np.uint32)
    words[:, 0] = random.choice(np.array([NONCE, tp_nonce(NONCE)], np.uint32), blocks)
    words[:, 0] ^= np.uint32(1) << random.integers(32, size=blocks, dtype=np.uint32)
    words[:, 1] = random.integers(6, size=blocks)
    words[MEET_OFFSET // 32 : MEET_OFFSET // 32 + MAX_RANKS, 0] = MEET_MAGIC
    return words.tobytes()


def execute(
    program: Program,
    schedule: Schedule,
    *,
    cores: int | tuple[int, ...] = 4,
    varying: bool = False,
    offset: int = 0,
    mutate: str = "",
    old_data: bytes = b"",
    judge: Judge | None = None,
) -> Outcome:
    """One run, judged by the oracle unless told otherwise.

    ``cores``: of every rank, or one number each; ``varying``: at most so many, new ones for every launch.
    ``offset`` shifts every tensor by so many elements; ``mutate`` drops one synchronisation site.
    """
    random = Random(schedule.seed)
    calls = [(step.op, call) for step in program.steps for call in step.calls]
    most = cores if isinstance(cores, int) else max(cores)
    with Simulator(schedule, mutate) as simulator:
        group = KernelGroup(
            simulator,
            program.ranks,
            window_bytes(calls),
            tp=program.tp,
            tp_window_bytes=tp_window_bytes(program.hidden, most) * random.randint(1, 3),
            cores=cores,
            offset=offset,
            old_data=old_data,
            product=program.product,
        )
        results: list[Sequence[Any]] = []
        for step in program.steps:
            if varying:
                per_ep_rank = [random.randint(1, most) for _ in range(program.ranks // program.tp)]
                group.cores = [count for count in per_ep_rank for _ in range(program.tp)]
            if step.op == "dispatch":
                results.append(group.dispatch(step.calls))
            else:
                results.append(group.combine(step.calls, results[step.of]))
        return run_and_judge(
            simulator, program, results, partial(judge or compare_with_oracle, group)
        )


def run_and_judge(
    simulator: Simulator,
    program: Program,
    results: Sequence[Sequence[Any]],
    judge: Callable[[Step, int, Any], str],
) -> Outcome:
    """Runs what was enqueued; ``judge``: what is wrong with the result of a step on a rank, or an empty string."""
    finished = simulator.run()
    outcome = Outcome(simulator.findings, simulator.deadlock, [], sites=simulator.sites)
    if not finished:
        return outcome
    outcome.counters = [
        [simulator.counters(result.launch) for result in ranks] for ranks in results
    ]
    for number, (step, ranks) in enumerate(zip(program.steps, results, strict=True)):
        for rank, result in enumerate(ranks):
            wrong = judge(step, rank, result)
            if wrong:
                outcome.mismatches.append(
                    f"{program.name} step {number} ({step.op}) rank {rank}: {wrong}"
                )
    return outcome


def compare_with_oracle(group: KernelGroup, step: Step, rank: int, result: Any) -> str:
    """What differs from the oracle, or an empty string."""
    if step.op == "combine":
        content, written = group.simulator.get(result.address, result.shape)
        if not written.all():
            return f"{int((~written).sum())} elements of the output were not written"
        return "" if same_bits(content, step.expected[rank]) else "the output differs"
    return dispatch_difference(group.read(result), step.expected[rank], step.calls[rank])


def dispatch_difference(
    found: Mapping[str, tuple[Tensor, Tensor]], expected: Any, call: Mapping[str, Any]
) -> str:
    """Compares (content, written) of every output given with the oracle; later rows must stay untouched."""
    own, rows = received_rows(expected, call)
    counts, nums = counts_written(expected, call)
    lengths = {
        "expand_x": rows,
        "assist_info_for_combine": 3 * own,
        "dynamic_scales": rows if call.get("quant_mode") or call["x"].dtype == torch.int32 else 0,
        "expert_token_nums": nums,
        "ep_recv_counts": counts,
        "tp_recv_counts": len(expected.tp_recv_counts) if call.get("tp_world_size") == 2 else 0,
    }
    for name, (content, written) in found.items():
        length = lengths.get(name, 0)
        if not written[:length].all():
            return f"{name} was not written completely"
        if written[length:].any():
            return f"{name} was written beyond its {length} entries"
        if not same_bits(content[:length], getattr(expected, name)[:length]):
            return f"{name} differs"
    return ""


def same_bits(found: Tensor, expected: Tensor) -> bool:
    return torch.equal(
        found.contiguous().view(torch.uint8), expected.contiguous().view(torch.uint8)
    )
