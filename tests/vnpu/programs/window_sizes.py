"""A window too small: the operators ask for as many bytes as ``required_hccl_buffsize`` says, for random sizes.

Phase one refuses, so one rank may call alone, once all have agreed in their first call whose kernels run. Run with
HCCL_BUFFSIZE=1.
"""

import random
import re

import ranks
import torch
import torch_npu

import ascend_moe

SIZE = 16


def check(rank: int) -> None:
    draw = random.Random(20261124)
    for _ in range(60 if rank == 0 else 1):
        sizes = {"max_bs": draw.randint(64, 256), "hidden": draw.randint(1024, 7168)}
        sizes["topk"] = draw.randint(1, 12)
        shared = draw.choice([0, 0, 2, 4])
        experts = draw.randint(2, 6) * (SIZE - shared)
        comm_alg = "" if shared else draw.choice(["", "fullmesh_v2", "hierarchy"])
        needed = ascend_moe.required_hccl_buffsize(
            **sizes,
            product="A3",
            contract="cann-9.1",
            ep_world_size=SIZE,
            moe_expert_num=experts,
            shared_expert_num=2 if shared else 1,
            shared_expert_rank_num=shared,
            comm_alg=comm_alg,
            op="dispatch",
        )
        x = torch.empty(sizes["max_bs"], sizes["hidden"], dtype=torch.bfloat16).npu()
        ids = torch.zeros(sizes["max_bs"], sizes["topk"], dtype=torch.int32).npu()
        weights = torch.zeros(ids.shape).npu()
        try:
            torch_npu.npu_moe_distribute_dispatch_v2(
                x,
                ids,
                ranks.GROUPS["ep"],
                SIZE,
                rank,
                experts,
                expert_scales=weights,
                shared_expert_num=2 if shared else 1,
                shared_expert_rank_num=shared,
                comm_alg=comm_alg,
            )
        except RuntimeError as error:
            found = re.search(r"NEEDED_HCCL_BUFFSIZE = (\d+) MB \((\d+) bytes", str(error))
            assert found, error
            assert (int(found[1]), int(found[2])) == (needed.mb, needed.bytes), (sizes, comm_alg)
        else:
            raise AssertionError(f"{needed} fitted into 1 MB")


if __name__ == "__main__":
    ranks.run(SIZE, check)
    print("the operators need what the formulas say")
