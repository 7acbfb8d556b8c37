"""What all layers of a program share: sizes and modes, given or drawn at random, within what the contract allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch


@dataclass(frozen=True)
class Shape:
    """What all layers of a program share."""

    ranks: int
    max_batch: int
    hidden: int
    topk: int
    local_experts: int
    shared_experts: int = 0
    shared_ranks: int = 0
    dtype: torch.dtype = torch.bfloat16
    quant: bool = False
    smooth: bool = False
    mask: int = 0
    uneven: bool = False
    cumulative: bool = False
    comm_quant: bool = False
    shared_x: bool = False
    zero_experts: int = 0
    copy_experts: int = 0
    const_experts: int = 0
    skewed: bool = False
    tp: int = 1
    strided: bool = False
    """Rows of tokens and weights lie apart, ids and masks are transposed."""
    product: str = "A3"
    packed: bool = False
    """int32 x on A2, eight int4 in a word, and a scale per token."""
    measured: bool = False
    """With performance_info, one tensor per rank for all layers."""

    @property
    def moe_experts(self) -> int:
        return self.local_experts * (self.ranks - self.shared_ranks)

    @property
    def contract(self) -> str:
        special = self.zero_experts + self.copy_experts + self.const_experts
        return "cann-9.1" if special or self.measured or self.product == "A2" else "cann-8.2"


HIDDEN = (1024, 1024, 1024, 1025, 1031, 1048, 1056, 1999, 2048, 4096, 7168, 8191, 8192)


def random_shape(random: Random, *, most_tokens: int = 8, hidden: Sequence[int] = HIDDEN) -> Shape:
    """A legal shape; all features occur, in any combination the contract allows."""
    ranks = random.choice((2, 2, 3, 4, 4, 5, 6, 8))
    shared_experts = random.choice((0, 0, 0, 1, 1, 2)) if ranks > 2 else random.choice((0, 0, 1))
    replicas = random.randint(1, max(1, (ranks - 1) // max(shared_experts, 1)))
    shared_ranks = shared_experts * replicas
    local_experts = random.choice((1, 1, 2, 3, 4, 7, 13))
    special = random.random() < 0.2
    moe = local_experts * (ranks - shared_ranks)
    tp = 2 if local_experts == 1 and not special and random.random() < 0.5 else 1
    dtype = random.choice((torch.bfloat16, torch.bfloat16, torch.float16))
    quant = random.random() < 0.5
    uneven = random.random() < 0.3
    return Shape(
        ranks=ranks,
        max_batch=random.randint(1, most_tokens),
        hidden=random.choice(hidden),
        topk=random.randint(1, min(16, moe)),
        local_experts=local_experts,
        shared_experts=shared_experts,
        shared_ranks=shared_ranks,
        dtype=dtype,
        quant=quant,
        smooth=quant and random.random() < 0.4,
        mask=0 if uneven else random.choice((0, 0, 1, 2)),
        uneven=uneven,
        cumulative=random.random() < 0.5,
        comm_quant=tp == 1 and random.random() < 0.3,
        shared_x=shared_ranks == 0 and random.random() < 0.3,
        zero_experts=random.randint(0, 2) if special else 0,
        copy_experts=random.randint(0, 2) if special else 0,
        const_experts=random.randint(0, 2) if special and dtype == torch.bfloat16 else 0,
        skewed=random.random() < 0.2,
        tp=tp,
        strided=random.random() < 0.2,
    )


HIDDEN_A2 = (32, 32, 64, 96, 1024, 1056, 2048, 5120, 7168)


def random_shape_a2(random: Random) -> Shape:
    """A legal shape of one A2 server: no shared, no const experts, no TP, no int8 combine."""
    ranks, local_experts = random.choice((2, 3, 4, 5, 7, 8, 8)), random.choice((1, 1, 2, 3, 7, 13))
    special = random.random() < 0.3
    quant = random.random() < 0.4
    packed = not quant and random.random() < 0.4
    uneven = random.random() < 0.3
    return Shape(
        ranks=ranks,
        max_batch=random.randint(1, 8),
        hidden=random.choice(HIDDEN_A2[:-1] if packed else HIDDEN_A2),
        topk=random.randint(1, min(16, local_experts * ranks)),
        local_experts=local_experts,
        dtype=random.choice((torch.bfloat16, torch.float16)),
        quant=quant,
        smooth=quant and random.random() < 0.4,
        mask=0 if uneven else random.choice((0, 0, 1, 2)),
        uneven=uneven,
        cumulative=random.random() < 0.5,
        zero_experts=random.randint(0, 2) if special else 0,
        # What is copied is x, in the dtype of the experts' rows.
        copy_experts=random.randint(0, 2) if special and not packed else 0,
        skewed=random.random() < 0.2,
        strided=random.random() < 0.2,
        product="A2",
        packed=packed,
    )
