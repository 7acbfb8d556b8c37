"""Random legal calls of a whole world, for property tests: a plan that hypothesis shrinks, and the tensors it names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a world's calls look like, plain unless told; `dispatch_calls` and `combine_calls` make the tensors."""

    ep: int
    local_experts: int
    batch_sizes: tuple[int, ...]
    hidden: int
    topk: int
    seed: int
    product: str = "A3"
    contract: str = "cann-8.2"
    tp: int = 1
    shared_experts: int = 0
    shared_ranks: int = 0
    dtype: str = "bfloat16"
    quant_mode: int = 0
    smooth: bool = False
    mask: str = "none"
    token_nums_type: int = 1
    expert_scales: bool = True
    shared_expert_x: str = "none"
    comm_quant_mode: int = 0
    special: tuple[int, int, int] = (0, 0, 0)
    skewed: bool = False
    strided: bool = False
    hierarchy: bool = False

    @property
    def experts(self) -> int:
        return self.local_experts * (self.ep - self.shared_ranks)

    @property
    def ranks(self) -> int:
        return self.ep * self.tp

    def environment(self) -> dict[str, str]:
        selected = self.hierarchy and self.contract == "cann-8.2"
        return {
            "ASCEND_MOE_PRODUCT": self.product,
            "ASCEND_MOE_CONTRACT": self.contract,
            "HCCL_INTRA_PCIE_ENABLE": str(int(selected)),
            "HCCL_INTRA_ROCE_ENABLE": str(int(not selected)),
        }


@st.composite
def plans(draw: st.DrawFn, ranks: int, *, tp: int = 1) -> Plan:
    ep = ranks // tp
    modes = ["A3 cann-8.2"] if tp == 2 else ["A3 cann-8.2", "A3 cann-9.1", "A2 cann-9.1"]
    product, contract = draw(st.sampled_from(modes)).split()
    shared_experts, shared_ranks = 0, 0
    if product == "A3" and draw(st.booleans()):
        shared_experts = draw(st.integers(1, min(4, ep - 1)))
        shared_ranks = shared_experts * draw(st.integers(1, (ep - 1) // shared_experts))
    local = 1 if tp == 2 else draw(st.integers(1, 4))
    experts = local * (ep - shared_ranks)
    special = (0, 0, 0)
    if contract == "cann-9.1":
        special = (
            draw(st.integers(0, 2)),
            draw(st.integers(0, 2)),
            draw(st.integers(0, 2)) * (product == "A3"),
        )
    topk = draw(st.integers(1, min(8, experts + sum(special))))
    max_bs = draw(st.integers(1, 9))
    uneven = draw(st.booleans())
    sizes = [draw(st.integers(1, max_bs)) if uneven else max_bs for _ in range(ranks)]
    even = len(set(sizes)) == 1
    quant_mode = draw(st.sampled_from([0, 2]))
    comm_quant = 0 if tp == 2 or product == "A2" else draw(st.sampled_from([0, 0, 2]))
    return Plan(
        product=product,
        contract=contract,
        ep=ep,
        tp=tp,
        shared_experts=shared_experts,
        shared_ranks=shared_ranks,
        local_experts=local,
        batch_sizes=tuple(sizes),
        hidden=draw(st.sampled_from([1024, 1056] if product == "A2" else [1024, 1027, 1060])),
        topk=topk,
        dtype=draw(st.sampled_from(["bfloat16", "float16"])),
        quant_mode=quant_mode,
        smooth=quant_mode == 2 and draw(st.booleans()),
        mask=draw(st.sampled_from(["none", "1d", "2d", "nobody"] if even else ["none"])),
        token_nums_type=draw(st.sampled_from([0, 1])),
        expert_scales=draw(st.booleans()),
        shared_expert_x=draw(st.sampled_from(["none", "2d", "3d"]))
        if product == "A3" and not shared_ranks
        else "none",
        comm_quant_mode=comm_quant,
        special=special,
        skewed=draw(st.booleans()),
        strided=draw(st.booleans()),
        seed=draw(st.integers(0, 2**31)),
    )


@st.composite
def hierarchy_plans(draw: st.DrawFn, ranks: int) -> Plan:
    """Calls that take the hierarchy path; ``ranks`` is a multiple of 16."""
    product, contract = draw(st.sampled_from(["A2 cann-8.2", "A2 cann-9.1", "A3 cann-9.1"])).split()
    local = draw(st.integers(1, 3))
    max_bs = draw(st.integers(1, 5))
    uneven = product == "A2" and draw(st.booleans())
    sizes = [draw(st.integers(1, max_bs)) if uneven else max_bs for _ in range(ranks)]
    return Plan(
        product=product,
        contract=contract,
        ep=ranks,
        tp=1,
        shared_experts=0,
        shared_ranks=0,
        local_experts=local,
        batch_sizes=tuple(sizes),
        hidden=1024 if product == "A3" else draw(st.sampled_from([32, 96])),
        topk=draw(st.integers(1, 8)),
        dtype=draw(st.sampled_from(["bfloat16", "float16"])),
        quant_mode=draw(st.sampled_from([0, 2])),
        smooth=False,
        mask=draw(st.sampled_from(["none", "1d", "nobody"] + ["2d"] * (product == "A2"))),
        token_nums_type=draw(st.sampled_from([0, 1])),
        expert_scales=True,
        shared_expert_x="none",
        comm_quant_mode=draw(st.sampled_from([0, 2])),
        special=(0, 0, 0),
        skewed=draw(st.booleans()),
        strided=draw(st.booleans()),
        seed=draw(st.integers(0, 2**31)),
        hierarchy=True,
    )


def dispatch_calls(plan: Plan) -> list[dict[str, Any]]:
    """One dict of operator keywords per rank; group names are left to the executor under test."""
    generator = torch.Generator().manual_seed(plan.seed)
    scales = None
    if plan.smooth:
        scales = (
            torch.rand(plan.shared_experts + plan.experts, plan.hidden, generator=generator) + 0.5
        )
    calls = []
    for rank, bs in enumerate(plan.batch_sizes):
        x = torch.randn(bs, plan.hidden, generator=generator).to(getattr(torch, plan.dtype))
        if bs > 1:
            x[0] = 0  # an all-zero row has its own rule in quantisation
        call = common(plan, rank, generator) | {
            "x": x,
            "scales": scales,
            "expert_scales": torch.rand(bs, plan.topk, generator=generator)
            if plan.expert_scales
            else None,
            "quant_mode": plan.quant_mode,
            "expert_token_nums_type": plan.token_nums_type,
        }
        calls.append(_strided(call) if plan.strided else call)
    return calls


def common(plan: Plan, rank: int, generator: torch.Generator) -> dict[str, Any]:
    bs, total = plan.batch_sizes[rank], plan.experts + sum(plan.special)
    if plan.skewed:
        ids = torch.arange(plan.topk).repeat(bs, 1).int()
    else:
        ids = torch.rand(bs, total, generator=generator).argsort(dim=1)[:, : plan.topk].int()
    mask = {
        "none": None,
        "1d": torch.arange(bs) < torch.randint(0, bs + 1, (1,), generator=generator),
        "2d": _ordered(torch.rand(bs, plan.topk, generator=generator) < 0.6),
        "nobody": torch.zeros(bs, dtype=torch.bool),
    }[plan.mask]
    ignored = plan.hierarchy and plan.product == "A2"
    if mask is not None and not ignored:  # rows that the mask switches off may hold anything
        inactive = ~mask if mask.dim() == 1 else ~mask.any(dim=1)
        ids[inactive] = -7
    uneven = len(set(plan.batch_sizes)) > 1
    call = {
        "expert_ids": ids,
        "ep_world_size": plan.ep,
        "ep_rank_id": rank // plan.tp,
        "moe_expert_num": plan.experts,
        "x_active_mask": mask,
        "shared_expert_num": plan.shared_experts or 1,
        "shared_expert_rank_num": plan.shared_ranks,
        "global_bs": max(plan.batch_sizes) * plan.ep if uneven or plan.seed % 2 else 0,
    }
    if plan.hierarchy and plan.contract == "cann-9.1":
        call["comm_alg"] = "hierarchy"
    if plan.tp == 2:
        call |= {"tp_world_size": 2, "tp_rank_id": rank % 2}
    if sum(plan.special):
        names = ("zero_expert_num", "copy_expert_num", "const_expert_num")
        call |= dict(zip(names, plan.special, strict=True))
    return call


def combine_calls(
    plan: Plan, dispatched: list[Any], given: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The calls that bring random expert outputs back on the handles of ``dispatched``."""
    generator = torch.Generator().manual_seed(plan.seed + 1)
    dtype = getattr(torch, plan.dtype)
    shared_names = common(plan, 0, generator).keys()
    constants = {
        name: torch.randn(plan.special[2], plan.hidden, generator=generator).mul(0.05).to(dtype)
        for name in ("const_expert_alpha_1", "const_expert_alpha_2", "const_expert_v")
        if plan.special[2]
    }
    calls = []
    for call, output, bs in zip(given, dispatched, plan.batch_sizes, strict=True):
        shared = None
        if plan.shared_expert_x != "none":
            shared = torch.randn(bs, plan.hidden, generator=generator).to(dtype)
            shared = shared[None] if plan.shared_expert_x == "3d" else shared
        combine = {name: call[name] for name in shared_names} | {
            "expand_x": torch.randn(len(output[0]), plan.hidden, generator=generator).to(dtype),
            "assist_info_for_combine": output[2],
            "ep_send_counts": output[4],
            "tp_send_counts": output[5] if plan.tp == 2 else None,
            "expert_scales": torch.rand(bs, plan.topk, generator=generator),
            "expand_scales": output[6],
            "shared_expert_x": shared,
            "comm_quant_mode": plan.comm_quant_mode,
        }
        if plan.special[1] or plan.special[2]:
            combine |= {"ori_x": call["x"]} | constants
        calls.append(_strided(combine) if plan.strided else combine)
    return calls


def _ordered(mask: Tensor) -> Tensor:
    """Rows that are all false go last, as the first contract asks of a 2-D mask."""
    return mask[torch.argsort((~mask.any(dim=1)).int(), stable=True)]


def _strided(call: dict[str, Any]) -> dict[str, Any]:
    """The same values, every tensor with holes between its elements and an offset in front."""
    return {
        name: _with_holes(value) if isinstance(value, Tensor) else value
        for name, value in call.items()
    }


def _with_holes(tensor: Tensor) -> Tensor:
    wide = torch.zeros([2 * size + 1 for size in tensor.shape], dtype=tensor.dtype)
    view = wide[tuple(slice(1, None, 2) for _ in tensor.shape)]
    view.copy_(tensor)
    assert view.shape == tensor.shape
    return view


def require_right(round_trips: list[Any], wanted: list[Any], combined: list[Any]) -> None:
    """By rank, outputs of dispatch and the one of combine: equal to the oracle's in shape, dtype and every bit."""
    names = (*wanted[0]._fields, "combine")
    for rank, (outputs, output) in enumerate(round_trips):
        oracles = (*wanted[rank], combined[rank])
        for name, ours, oracle in zip(names, (*outputs, output), oracles, strict=True):
            assert ours.shape == oracle.shape, f"rank {rank} {name}"
            assert ours.dtype == oracle.dtype, f"rank {rank} {name}"
            assert ours.equal(oracle), f"rank {rank} {name}"
