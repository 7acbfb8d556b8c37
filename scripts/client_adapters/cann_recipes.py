"""cann-recipes-infer's ``moe_infer_dispatch_combine`` of Qwen3-MoE, with experts on the host."""

from __future__ import annotations

import functools
import importlib
import types
from pathlib import Path
from typing import Any

import torch

from client_adapters.judge import HIDDEN, Batch, Case, expert_outputs, group_name
from client_adapters.stubs import Stubs, install

NAME, WHAT = "cann-recipes-infer", "Qwen3MoeSparseMoeBlock.moe_infer_dispatch_combine"
FILE = "models/qwen3_moe/models/modeling_qwen3_moe.py"
CASES = (Case("bf16, fullmesh_v2", products=("A3",)),)


@functools.cache
def block_class(checkout: str) -> Any:
    packages = {"recipe": (Path(checkout) / FILE).parent}
    real = ("recipe.modeling_qwen3_moe",)
    install(Stubs(("recipe", "module", "executor", "torchair"), packages, real))
    return importlib.import_module(real[0]).Qwen3MoeSparseMoeBlock


def run(checkout: str, case: Case, batch: Batch) -> torch.Tensor:
    """Their method on a block that has what it reads, and no weights."""
    _, name = group_name()
    block = block_class(checkout).__new__(block_class(checkout))
    torch.nn.Module.__init__(block)
    block.num_experts, block.hidden_dim = batch.experts, HIDDEN
    block.moe_ep_size, block.moe_tp_size = batch.ranks, 1
    block.comm_manager = types.SimpleNamespace(
        config=types.SimpleNamespace(global_rank=batch.rank), get_group_name=lambda group: name
    )

    def experts(x: torch.Tensor, expert_tokens: torch.Tensor, group_list_type: int) -> torch.Tensor:
        assert group_list_type == 1  # counts
        return expert_outputs(batch, x, expert_tokens)

    block.experts = experts
    return block.moe_infer_dispatch_combine(batch.x, batch.ids, batch.weights)
