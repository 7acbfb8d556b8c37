"""The calls of real callers, as they make them, each with the contract that it is judged by.

Public sources: vllm-project/vllm-ascend vllm_ascend/ops/fused_moe/token_dispatcher.py,
hicann/cann-recipes-infer model files, sgl-project/sgl-kernel-npu
python/deep_ep/deep_ep/strategies/low_latency_strategy.py, xLLM-AI/xllm
xllm/core/kernels/npu/npu_moe_distribute_dispatch_v2.cpp.
"""

import pytest
import torch

from ascend_moe.contract.agreement import disagreements, statement
from ascend_moe.contract.check import violations
from ascend_moe.contract.resolve import resolve_contract
from ascend_moe.contract.signature import with_defaults

BS, H, K, EP = 8, 7168, 8, 16


def meta(*shape, dtype=torch.bfloat16):
    return torch.empty(*shape, dtype=dtype, device="meta")


def ids(topk=K):
    return meta(BS, topk, dtype=torch.int32)


def handle(moe, ep=EP, topk=K):
    """What dispatch returned, as it goes into combine."""
    rows = BS * ep * min(moe // ep, topk)
    return {
        "expand_x": meta(rows, H),
        "assist_info_for_combine": meta(rows * 128, dtype=torch.int32),
        "ep_send_counts": meta(moe, dtype=torch.int32),
        "expert_scales": meta(BS, topk, dtype=torch.float32),
    }


def rules(op, call, product, contract, **options):
    env = {"HCCL_BUFFSIZE": "4096"} | options.pop("env", {})
    found = violations(op, call, product=product, contract=contract, env=env, **options)
    return [(violation.rule, violation.level) for violation in found]


def vllm_dispatch(product, **changes):
    call = {
        "x": meta(BS, H),
        "expert_ids": ids(),
        "expert_shard_type": 0,
        "shared_expert_rank_num": 0,
        "moe_expert_num": 256,
        "global_bs": 0,
        "expert_token_nums_type": 0,
        "x_active_mask": meta(BS, dtype=torch.bool),
        "scales": None,
        "quant_mode": 2,
        "group_ep": "mc2",
        "ep_world_size": EP,
        "ep_rank_id": 3,
    }
    if product == "A3":
        call |= {"group_tp": "mc2", "tp_world_size": 1, "tp_rank_id": 0}
    return call | changes


def vllm_combine(product, **changes):
    call = {
        **handle(256),
        "expert_ids": ids(),
        "expert_shard_type": 0,
        "shared_expert_rank_num": 0,
        "moe_expert_num": 256,
        "global_bs": 0,
        "comm_quant_mode": 0,
        "x_active_mask": meta(BS, dtype=torch.bool),
        "group_ep": "mc2",
        "ep_world_size": EP,
        "ep_rank_id": 3,
        # Dispatch's output as the wrapper allocates it, also on A3.
        "expand_scales": meta(BS * EP * K, dtype=torch.float32),
        "tp_send_counts": meta(1, dtype=torch.int32),
    }
    if product == "A3":
        call |= {"group_tp": "mc2", "tp_world_size": 1, "tp_rank_id": 0}
    return call | changes


@pytest.mark.parametrize("contract", ["cann-8.2", "cann-9.1"])
def test_vllm_ascend_on_a3(contract):
    assert rules("dispatch", vllm_dispatch("A3"), "A3", contract) == []
    assert rules("combine", vllm_combine("A3"), "A3", contract) == []


def test_vllm_ascend_on_a3_with_a_capacity_instead_of_a_mask():
    call = vllm_dispatch("A3", global_bs=64 * EP, x_active_mask=None)
    assert rules("dispatch", call, "A3", "cann-8.2") == []


def test_vllm_ascend_on_a2_masks_tokens_which_only_the_later_contract_allows():
    assert rules("dispatch", vllm_dispatch("A2"), "A2", "cann-9.1") == []
    assert rules("combine", vllm_combine("A2"), "A2", "cann-9.1") == []
    assert rules("dispatch", vllm_dispatch("A2"), "A2", "cann-8.2") == [("X-33", "error")]


def test_vllm_ascend_hierarchy_is_judged_by_the_later_contract():
    call = vllm_dispatch(
        "A2",
        x_active_mask=None,
        expert_scales=meta(BS, K, dtype=torch.float32),
        comm_alg="hierarchy",
    )
    assert resolve_contract("dispatch", call).name == "cann-9.1"
    assert rules("dispatch", call, "A2", "cann-9.1") == []
    assert rules("dispatch", call, "A2", "cann-8.2") == [("X-29", "error")]


INTRA = {"HCCL_INTRA_PCIE_ENABLE": "1", "HCCL_INTRA_ROCE_ENABLE": "0"}


@pytest.mark.parametrize("contract", ["cann-8.2", "cann-9.1"])
def test_vllm_ascend_masks_in_a2_hierarchy_which_ignores_it(contract):
    """Hierarchy forces global_bs = 0, with which vLLM always passes the mask, to both operators.

    vllm-ascend 182b75ea84 vllm_ascend/utils.py:1117, ops/fused_moe/token_dispatcher.py:198, 310: expert_scales always;
    comm_alg only with the configuration's flag, else the two variables alone select hierarchy.
    """
    dispatch = vllm_dispatch("A2", expert_scales=meta(BS, K, dtype=torch.float32))
    tables = 256 + 2 * BS * EP * K * (EP // 8)
    combine = vllm_combine("A2", ep_send_counts=meta(tables, dtype=torch.int32))
    for op, call in (("dispatch", dispatch), ("combine", combine)):
        assert rules(op, call, "A2", contract, env=INTRA) == [("X-46", "warning")]
        named = call | {"comm_alg": "hierarchy"}
        if contract == "cann-9.1":
            assert rules(op, named, "A2", contract) == [("X-46", "warning")]


def recipe(**changes):
    """cann-recipes-infer: fullmesh_v2 on A3, smooth scales, no shared experts in the operator."""
    return {
        "x": meta(BS, H),
        "expert_ids": ids(),
        "x_active_mask": None,
        "expert_shard_type": 0,
        "shared_expert_num": 0,
        "shared_expert_rank_num": 0,
        "moe_expert_num": 256,
        "global_bs": 0,
        "scales": meta(256, H, dtype=torch.float32),
        "quant_mode": 2,
        "group_ep": "moe_ep_group_mc2",
        "ep_world_size": EP,
        "ep_rank_id": 0,
        "group_tp": "moe_ep_group_mc2",
        "tp_world_size": 1,
        "tp_rank_id": 0,
        "comm_alg": "fullmesh_v2",
        **changes,
    }


def test_recipe_with_fullmesh_v2():
    call = recipe()
    assert resolve_contract("dispatch", call).name == "cann-9.1"
    assert rules("dispatch", call, "A3", "cann-9.1") == []


def test_recipe_with_copy_experts():
    special = {"zero_expert_num": 0, "copy_expert_num": 64, "const_expert_num": 0}
    call = recipe(scales=None, quant_mode=0, **special)
    assert rules("dispatch", call, "A3", "cann-9.1") == []
    combine = {
        **handle(256),
        "expert_ids": ids(),
        "moe_expert_num": 256,
        "shared_expert_num": 0,
        "group_ep": "moe_ep_group_mc2",
        "group_tp": "moe_ep_group_mc2",
        "tp_world_size": 1,
        "ep_world_size": EP,
        "ep_rank_id": 0,
        "tp_send_counts": meta(1, dtype=torch.int32),
        **special,
    }
    assert rules("combine", combine | {"ori_x": meta(BS, H)}, "A3", "cann-9.1") == []
    assert rules("combine", combine, "A3", "cann-9.1") == [("C-15", "error")]


def test_recipe_for_ascend950_is_refused_by_name():
    call = recipe(quant_mode=4, y_dtype=292, scales=None)
    assert rules("dispatch", call, "A3", "cann-9.1") == [("D-12", "error"), ("D-22", "error")]


def sgl(comm_alg, mask):
    """sgl-kernel-npu: padded rows hold anything, the mask hides them."""
    expert_ids = torch.arange(K, dtype=torch.int32).repeat(BS, 1)
    expert_ids[5:] = torch.tensor([-(2**31), 2**31 - 1, 7, 7, 7, 7, 7, 7], dtype=torch.int32)
    return {
        "x": torch.zeros(BS, H, dtype=torch.bfloat16),
        "expert_ids": expert_ids,
        "x_active_mask": mask,
        "group_ep": "deep_ep",
        "ep_world_size": EP,
        "ep_rank_id": 1,
        "moe_expert_num": 256,
        "shared_expert_num": 0,
        "quant_mode": 2,
        "expert_token_nums_type": 1,
        "performance_info": None,
        "comm_alg": comm_alg,
    }


@pytest.mark.parametrize("comm_alg", ["fullmesh_v1", "fullmesh_v2"])
@pytest.mark.parametrize("two_dimensions", [False, True])
def test_sgl_kernel_npu_pads_with_garbage(comm_alg, two_dimensions):
    active = torch.arange(BS) < 5
    mask = active[:, None].repeat(1, K) if two_dimensions else active
    assert rules("dispatch", sgl(comm_alg, mask), "A3", "cann-9.1", values=True) == []
    unmasked = rules("dispatch", sgl(comm_alg, None), "A3", "cann-9.1", values=True)
    assert unmasked == [("X-36", "error"), ("X-37", "error")]


def test_sgl_kernel_npu_ccu_belongs_to_ascend950():
    assert rules("dispatch", sgl("ccu", None), "A3", "cann-9.1") == [("X-29", "error")]


def test_one_dictionary_for_both_operators():
    """Some callers give combine the comm_alg of dispatch; its kernels ignore it."""
    call = vllm_combine("A3", comm_alg="fullmesh_v2")
    assert rules("combine", call, "A3", "cann-9.1") == [("X-29", "warning")]
    assert rules("combine", call | {"comm_alg": "ring"}, "A3", "cann-9.1") == [("X-29", "error")]


def xllm(batch):
    return {
        "x": torch.zeros(batch, H, dtype=torch.bfloat16),
        "expert_ids": torch.arange(K, dtype=torch.int32).repeat(batch, 1),
        "expert_scales": torch.zeros(batch, K),
        "group_ep": "ep",
        "ep_world_size": 2,
        "ep_rank_id": 0,
        "moe_expert_num": 64,
        "group_tp": "",
        "tp_world_size": 0,
        "shared_expert_num": 1,
        "shared_expert_rank_num": 0,
        "quant_mode": 0,
        "global_bs": 0,
    }


@pytest.mark.parametrize("contract", ["cann-8.2", "cann-9.1"])
def test_xllm_even_batches(contract):
    assert rules("dispatch", xllm(8), "A3", contract, values=True) == []


def test_xllm_uneven_batches_with_global_bs_0_are_refused():
    calls = [with_defaults("dispatch", xllm(batch)) for batch in (8, 4)]
    found = disagreements([statement("dispatch", call) for call in calls], rank_param=None)
    assert [violation.rule for violation in found] == ["X-45"]
