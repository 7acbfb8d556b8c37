"""What every client is given, what an expert does here, and what must come out: plain torch, no operator of ours.

Expert e multiplies its rows by (e + 1) / 4. So a row that went to a wrong expert, or came back to a wrong token, shows.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

HIDDEN, TOPK, EXPERTS_PER_RANK = 1024, 3, 4
QUANTISED_ERROR = 1 / 64  # of the largest element: int8 has 127 steps, and a row is rounded once


@dataclass(frozen=True)
class Case:
    """One way to call a client."""

    name: str
    int8: bool = False
    tokens: tuple[int, ...] = (8, 8, 8, 8)  # by rank
    products: tuple[str, ...] = ("A2", "A3")
    option: Any = None  # what only the adapter knows


@dataclass
class Batch:
    """The tokens of a rank, on its device."""

    x: torch.Tensor  # (tokens, HIDDEN) bf16
    ids: torch.Tensor  # (tokens, TOPK) int32, distinct per token
    weights: torch.Tensor  # (tokens, TOPK) fp32
    rank: int
    ranks: int

    @property
    def experts(self) -> int:
        return self.ranks * EXPERTS_PER_RANK


def on_rank(rank: int, adapter: str, checkout: str, case: Case) -> str:
    """Run the client of this rank and judge it; returns what is to be said, raises AssertionError if it is wrong."""
    ranks = dist.get_world_size()
    generator = torch.Generator().manual_seed(rank)
    tokens = case.tokens[rank]
    x = torch.randn(tokens, HIDDEN, generator=generator).to(torch.bfloat16)
    order = torch.rand(tokens, ranks * EXPERTS_PER_RANK, generator=generator).argsort(dim=1)
    ids = order[:, :TOPK].to(torch.int32)
    weights = torch.rand(tokens, TOPK, generator=generator)
    batch = Batch(x.npu(), ids.npu(), weights.npu(), rank, ranks)
    run: Callable[[str, Case, Batch], torch.Tensor] = importlib.import_module(adapter).run
    found = run(checkout, case, batch).cpu()
    wanted = expected(x, ids, weights)
    assert found.shape == wanted.shape, f"shape {tuple(found.shape)}, not {tuple(wanted.shape)}"
    if not case.int8:
        different = int((found != wanted).sum())
        assert different == 0, f"{different} of {wanted.numel()} elements differ"
        return "equal to the bit"
    error = float((found.float() - wanted.float()).abs().max() / wanted.float().abs().max())
    assert error < QUANTISED_ERROR, f"error {error:.4f} of the largest element"
    return f"within int8's rounding ({error:.4f} of the largest element on rank 0)"


def expected(x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The sum over k in ascending order in fp32, each product rounded before it is added, rounded once at the end."""
    total = torch.zeros(x.shape)
    for k in range(ids.shape[1]):
        rows = (x * ((ids[:, k, None] + 1) / 4)).to(torch.bfloat16)
        total = total + rows.float() * weights[:, k, None]
    return total.to(torch.bfloat16)


def expert_outputs(
    batch: Batch, rows: torch.Tensor, counts: torch.Tensor, scales: torch.Tensor | None = None
) -> torch.Tensor:
    """What the experts of this rank make of the rows they received: (A, HIDDEN) bf16.

    rows: in the order of dispatch, int8 with ``scales``; counts: rows per local expert.
    """
    per_expert = counts.cpu().tolist()
    experts = torch.arange(EXPERTS_PER_RANK) + batch.rank * EXPERTS_PER_RANK
    factor = torch.repeat_interleave((experts + 1) / 4, torch.tensor(per_expert))
    host = rows.cpu()[: len(factor)].float()
    if scales is not None:
        host = host * scales.cpu()[: len(factor), None]
    outputs = torch.zeros(rows.shape, dtype=torch.bfloat16)
    outputs[: len(factor)] = host * factor[:, None]
    return outputs.npu()


def group_name() -> tuple[dist.ProcessGroup, str]:
    """An HCCL group of all ranks, and its name."""
    group = dist.group.WORLD
    assert group is not None
    backend: Any = group._get_backend(torch.device("npu"))
    return group, backend.get_hccl_comm_name(dist.get_rank())
