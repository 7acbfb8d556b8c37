"""vllm-ascend's ``TokenDispatcherWithMC2``: its own keywords, masks and metadata, without vllm."""

from __future__ import annotations

import enum
import functools
import importlib
import types
from pathlib import Path
from typing import Any

import torch

from ascend_moe.contract.resolve import resolve_product
from client_adapters.judge import HIDDEN, Batch, Case, expert_outputs, group_name
from client_adapters.stubs import Stubs, install

NAME, WHAT = "vllm-ascend", "TokenDispatcherWithMC2"
FILE = "vllm_ascend/ops/fused_moe/token_dispatcher.py"
CAPACITY = 16  # tokens per rank
CASES = (
    Case("bf16, x_active_mask", option="mask"),
    Case("bf16, global_bs", option="global_bs"),
    Case("bf16, uneven batches", tokens=(5, 16, 1, 9), option="global_bs"),
    Case("bf16, inactive tokens", tokens=(8, 8, 8, 8), option="inactive"),
    Case("W8A8", int8=True, option="mask"),
    Case("W8A8, uneven batches", int8=True, tokens=(16, 3, 7, 1), option="global_bs"),
)


@functools.cache
def client(checkout: str) -> types.SimpleNamespace:
    """The dispatcher's module, and those of its values, with everything around them replaced."""
    root = Path(checkout) / "vllm_ascend"
    folders = ("", "ops", "ops/fused_moe", "quantization")
    packages = {".".join(["vllm_ascend", *Path(folder).parts]): root / folder for folder in folders}
    real = (
        "vllm_ascend.ops.fused_moe.token_dispatcher",
        "vllm_ascend.ops.fused_moe.dataclass",
        "vllm_ascend.ops.fused_moe.moe_utils",
        "vllm_ascend.quantization.quant_type",
    )
    install(Stubs(("vllm", "vllm_ascend"), packages, real))
    utils: Any = importlib.import_module("vllm_ascend.utils")
    utils.AscendDeviceType = enum.Enum("AscendDeviceType", ["A2", "A3", "A5", "_310P"])
    dataclass = "vllm_ascend.ops.fused_moe.dataclass"
    return types.SimpleNamespace(
        dispatcher=importlib.import_module(real[0]),
        values=importlib.import_module(f"{dataclass}.token_dispatcher"),
        router=importlib.import_module(f"{dataclass}.router_input"),
        quant=importlib.import_module(f"{dataclass}.moe_quant"),
        kind=importlib.import_module(real[3]).QuantType,
        devices=utils.AscendDeviceType,
    )


def run(checkout: str, case: Case, batch: Batch) -> torch.Tensor:
    """Dispatch, experts on the host, combine."""
    theirs = client(checkout)
    group, _ = group_name()
    _configure(theirs, batch, group, uneven=case.option == "global_bs")
    mc2 = theirs.dispatcher.TokenDispatcherWithMC2(top_k=3, num_experts=batch.experts)
    active = len(batch.x)
    x, ids, weights, mask = batch.x, batch.ids, batch.weights, None
    if case.option != "global_bs":
        padding = 4 if case.option == "inactive" else 0  # rows that no mask shows
        x = torch.cat([x, torch.full((padding, HIDDEN), float("nan"), dtype=x.dtype).npu()])
        ids = torch.cat([ids, torch.full((padding, ids.shape[1]), -7, dtype=ids.dtype).npu()])
        weights = torch.cat([weights, weights.new_zeros(padding, ids.shape[1])])
        mask = torch.arange(active + padding).lt(active).npu()
    router = theirs.router.MoeRouterInput(
        expert_map=torch.arange(batch.experts),
        global_redundant_expert_num=0,
        mc2_mask=mask,
        apply_router_weight_on_input=False,
    )
    kind = theirs.kind.W8A8 if case.int8 else theirs.kind.NONE
    dispatched = mc2.token_dispatch(
        theirs.values.MoETokenDispatchInput(
            hidden_states=x,
            topk_weights=weights,
            topk_ids=ids,
            routing=router,
            quant=theirs.quant.MoEQuantParams(quant_type=kind),
        )
    )
    totals = dispatched.group_list.cpu()
    counts = (
        totals
        if dispatched.group_list_type == 1
        else torch.diff(totals, prepend=totals.new_zeros(1))
    )
    scales = dispatched.dynamic_scale if case.int8 else None
    outputs = expert_outputs(batch, dispatched.hidden_states, counts, scales)
    return mc2.token_combine(outputs, dispatched.combine_metadata)[:active]


def _configure(theirs: Any, batch: Batch, group: Any, *, uneven: bool) -> None:
    """What vllm's configuration and groups would answer."""
    module = theirs.dispatcher
    mc2 = types.SimpleNamespace(
        device_group=group, rank_in_group=batch.rank, world_size=batch.ranks
    )
    parallel = types.SimpleNamespace(tensor_parallel_size=1)
    module.get_mc2_group = lambda: mc2
    module.get_ascend_device_type = lambda: theirs.devices[resolve_product(None).name]
    module.is_hierarchical_communication_enabled = lambda: False
    module.get_current_vllm_config = lambda: types.SimpleNamespace(parallel_config=parallel)
    module.get_mc2_tokens_capacity = lambda: CAPACITY
    module.should_skip_allreduce_across_dp_group = lambda config: uneven
    module.get_ascend_config = lambda: types.SimpleNamespace(enable_mc2_hierarchy_comm=False)
