"""A layer on A2: what ranks that stand on one server, or on two, are told.

usage: a2.py auto
       a2.py refused [store | hccl] [RANK VARIABLE=VALUE]

``refused``: through ascend_moe's functions, which ask through the store, or bare torch_npu. That rank has
this variable.
"""

import os
import sys
from typing import Any

import ranks
import torch
import torch_npu

import ascend_moe
from ascend_moe.reference import dispatch_world

SIZE = {"auto": 2, "refused": 4}[sys.argv[1]]


def calls() -> list[dict]:
    """H is legal on A2 alone."""
    generator = torch.Generator().manual_seed(3)
    return [
        {
            "x": torch.randn(5, 96, generator=generator).bfloat16(),
            "expert_ids": torch.rand(5, 2 * SIZE, generator=generator).argsort(dim=1)[:, :3].int(),
            "ep_world_size": SIZE,
            "ep_rank_id": rank,
            "moe_expert_num": 2 * SIZE,
        }
        for rank in range(SIZE)
    ]


def auto(rank: int) -> None:
    """Without a word about whose kernels; what A2 does not have is refused by name."""
    given = calls()
    wanted = dispatch_world(given, product="A2", contract="cann-9.1")[rank]
    call = ranks.on_npu(given[rank])
    got = torch_npu.npu_moe_distribute_dispatch_v2(**call)
    rows = int(wanted.ep_recv_counts[-1])
    assert torch.equal(got[0].cpu()[:rows], wanted.expand_x[:rows])
    for changes, why in (
        ({"x": call["x"][:, :31].contiguous()}, "H=31, must be a multiple of 32 in A2 full mesh"),
        ({"tp_world_size": 2, "group_tp": call["group_ep"]}, "tp_world_size=2"),
        ({"const_expert_num": 1}, "const_expert_num is given, which A2 full mesh does not have"),
    ):
        assert why in refused(lambda changes=changes: dispatch(call | changes)), changes
    if rank == 0:
        print("right", flush=True)


def dispatch(call: dict, module: Any = torch_npu) -> None:
    module.npu_moe_distribute_dispatch_v2(**call)
    torch.npu.synchronize()


def refused(call) -> str:
    try:
        call()
    except RuntimeError as error:
        return " ".join(str(error).split())
    return "no error"


def spread(rank: int) -> None:
    if sys.argv[3:4] == [str(rank)]:
        variable, _, value = sys.argv[4].partition("=")
        os.environ[variable] = value
    module = ascend_moe if sys.argv[2] == "store" else torch_npu
    call = ranks.on_npu(calls()[rank])
    for _ in range(2):  # the second call learns it too
        text = refused(lambda: dispatch(call, module))
    print(f"rank {rank} refused: {text}\n", end="", flush=True)


if __name__ == "__main__":
    ranks.run(SIZE, {"auto": auto, "refused": spread}[sys.argv[1]])
    os._exit(0)
