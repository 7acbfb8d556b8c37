"""The three aclnn generations of both operators, called as a C program calls them; equal to the oracle.

torch_npu takes the newest it finds, so V2 and V3 are reached by older wheels and by callers without torch_npu.
"""

import ctypes
import os
from pathlib import Path

import ranks
import torch
import torch_npu

from ascend_moe.contract.shapes import dispatch_specs_of_call
from ascend_moe.contract.signature import with_defaults
from ascend_moe.reference import combine_world, dispatch_world

SIZE = 2
ACL_TYPES = {
    torch.float32: 0,
    torch.float16: 1,
    torch.int8: 2,
    torch.int32: 3,
    torch.int64: 9,
    torch.bool: 12,
    torch.bfloat16: 27,
}
FORMAT_ND = 2

# The parameters of V4 in order (op_api of ops-transformer); in brackets what came with which generation.
SINCE = {
    "elastic_info": 3,
    "ori_x": 3,
    "const_expert_alpha_1": 3,
    "const_expert_alpha_2": 3,
    "const_expert_v": 3,
    "zero_expert_num": 3,
    "copy_expert_num": 3,
    "const_expert_num": 3,
    "performance_info": 4,
}
WORLD = (
    "group_ep ep_world_size ep_rank_id moe_expert_num group_tp tp_world_size tp_rank_id expert_shard_type "
    "shared_expert_num shared_expert_rank_num"
)
SPECIAL = "zero_expert_num copy_expert_num const_expert_num"
PARAMETERS = {
    "Dispatch": (
        "x expert_ids scales x_active_mask expert_scales elastic_info performance_info "
        f"{WORLD} quant_mode global_bs expert_token_nums_type comm_alg {SPECIAL}"
    ).split(),
    "Combine": (
        "expand_x expert_ids assist_info_for_combine ep_send_counts expert_scales tp_send_counts x_active_mask "
        "activation_scale weight_scale group_list expand_scales shared_expert_x elastic_info ori_x "
        "const_expert_alpha_1 const_expert_alpha_2 const_expert_v performance_info "
        f"{WORLD} global_bs outDtype comm_quant_mode groupListType comm_alg {SPECIAL}"
    ).split(),
}
TENSORS = {
    "Dispatch": PARAMETERS["Dispatch"][:7],
    "Combine": PARAMETERS["Combine"][:18],
}
NOT_IN_TORCH = {"outDtype": 0, "groupListType": 0}


def acl_tensor(tensor: torch.Tensor | None) -> ctypes.c_void_p | None:
    """An aclTensor over the storage of a tensor, with its strides and its offset."""
    if tensor is None:
        return None
    dims = (ctypes.c_int64 * max(tensor.dim(), 1))(*tensor.shape)
    strides = (ctypes.c_int64 * max(tensor.dim(), 1))(*tensor.stride())
    storage = tensor.untyped_storage()
    flat = (ctypes.c_int64 * 1)(storage.nbytes() // tensor.element_size())
    create = LIBRARY["nnopbase"].aclCreateTensor
    create.restype = ctypes.c_void_p
    made = create(
        dims,
        ctypes.c_uint64(tensor.dim()),
        ACL_TYPES[tensor.dtype],
        strides,
        ctypes.c_int64(tensor.storage_offset()),
        FORMAT_ND,
        flat,
        ctypes.c_uint64(1),
        ctypes.c_void_p(storage.data_ptr()),
    )
    return ctypes.c_void_p(made)


def call(operator: str, generation: int, given: dict, outputs: list[torch.Tensor]) -> None:
    """Both phases of one operator; asserts that they succeed."""
    arguments: list[object] = []
    for name in PARAMETERS[operator]:
        if SINCE.get(name, 2) > generation:
            continue
        value = (given | NOT_IN_TORCH).get(name)
        if name in TENSORS[operator]:
            arguments.append(acl_tensor(value))
        elif isinstance(value, str):
            arguments.append(ctypes.c_char_p(value.encode()))
        else:
            arguments.append(ctypes.c_int64(value))
    arguments += [acl_tensor(tensor) for tensor in outputs]
    workspace, executor = ctypes.c_uint64(), ctypes.c_void_p()
    symbol = f"aclnnMoeDistribute{operator}V{generation}"
    operators = LIBRARY["cust_opapi"]
    status = getattr(operators, symbol + "GetWorkspaceSize")(
        *arguments, ctypes.byref(workspace), ctypes.byref(executor)
    )
    assert status == 0, f"{symbol}GetWorkspaceSize: {status}"
    scratch = torch.empty(max(workspace.value, 1), dtype=torch.uint8, device="npu")
    stream = ctypes.c_void_p(torch_npu.npu.current_stream().npu_stream)
    status = getattr(operators, symbol)(
        ctypes.c_void_p(scratch.data_ptr()), ctypes.c_uint64(workspace.value), executor, stream
    )
    assert status == 0, f"{symbol}: {status}"


LIBRARY: dict[str, ctypes.CDLL] = {}


def load_libraries() -> None:
    vendor = Path(os.environ["ASCEND_CUSTOM_OPP_PATH"].split(":")[0])
    home = Path(os.environ["ASCEND_HOME_PATH"])
    LIBRARY["cust_opapi"] = ctypes.CDLL(str(vendor / "op_api/lib/libcust_opapi.so"))
    LIBRARY["nnopbase"] = ctypes.CDLL(str(home / "lib64/libnnopbase.so"))


def dispatch_calls() -> list[dict]:
    generator = torch.Generator().manual_seed(7)
    calls = []
    for rank in range(SIZE):
        wide = torch.randn(6, 2 * 1024 + 3, generator=generator).bfloat16()
        calls.append(
            {
                "x": wide[:, 3::2],
                "expert_ids": torch.rand(6, 8, generator=generator).argsort(dim=1)[:, :3].int(),
                "ep_world_size": SIZE,
                "ep_rank_id": rank,
                "moe_expert_num": 8,
                "quant_mode": 2,
            }
        )
    return calls


def check(rank: int) -> None:
    load_libraries()
    calls = dispatch_calls()
    wanted = dispatch_world(calls, product="A3", contract="cann-9.1")
    generator = torch.Generator().manual_seed(8)
    expert_outputs = [
        torch.randn(len(one[0]), 1024, generator=generator).bfloat16() for one in wanted
    ]
    weights = [torch.rand(6, 3, generator=generator) for _ in wanted]
    homeward = [
        {name: value for name, value in one.items() if name not in ("x", "quant_mode")}
        | {
            "expand_x": rows,
            "assist_info_for_combine": output[2],
            "ep_send_counts": output[4],
            "expert_scales": weight,
        }
        for one, output, rows, weight in zip(calls, wanted, expert_outputs, weights, strict=True)
    ]
    combined = combine_world(homeward, product="A3", contract="cann-9.1")[rank]
    for generation in (2, 3, 4):
        given = with_defaults("dispatch", ranks.on_npu(calls[rank]))
        outputs = [
            torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)).npu()
            for spec in dispatch_specs_of_call(given)
        ]
        call("Dispatch", generation, given, outputs)
        received = int(wanted[rank][4][-1])
        for index, head in ((0, received), (1, received), (2, 3 * received), (3, 4), (4, 8)):
            got, oracle = outputs[index].cpu()[:head], wanted[rank][index][:head]
            assert torch.equal(got, oracle), f"V{generation} dispatch, output {index}"
        result = torch.zeros(6, 1024, dtype=torch.bfloat16).npu()
        given = with_defaults("combine", ranks.on_npu(homeward[rank]))
        call("Combine", generation, given, [result])
        assert torch.equal(result.cpu(), combined), f"V{generation} combine"


if __name__ == "__main__":
    ranks.run(SIZE, check)
    print("V2, V3 and V4 equal the oracle")
