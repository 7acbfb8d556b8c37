"""What random worlds do not draw: packed int4 tokens, and the waits that performance_info adds up.

usage: attributes.py PRODUCT

Our kernels (ASCEND_MOE_KERNELS=require) have no performance_info, and a handle of their own.
"""

import os
import sys
import time

import ranks
import torch
import torch_npu

from ascend_moe.reference import dispatch_world

SIZE = 2
OURS = os.environ.get("ASCEND_MOE_KERNELS") == "require"
LATE_RANK, LATE_S = 1, 0.3


def packed_calls() -> list[dict]:
    """int32 x, eight int4 in a word, with a scale for each token."""
    generator = torch.Generator().manual_seed(5)
    return [
        {
            "x": torch.randint(-(2**31), 2**31, (5, 64), generator=generator).int(),
            "expert_ids": torch.rand(5, 4, generator=generator).argsort(dim=1)[:, :3].int(),
            "scales": torch.rand(5, generator=generator),
            "ep_world_size": SIZE,
            "ep_rank_id": rank,
            "moe_expert_num": 4,
        }
        for rank in range(SIZE)
    ]


def check_packed(rank: int) -> None:
    calls = packed_calls()
    wanted = dispatch_world(calls, product="A2", contract="cann-9.1")[rank]
    got = torch_npu.npu_moe_distribute_dispatch_v2(**ranks.on_npu(calls[rank]))
    received = int(wanted[4][-1])
    for index, head in ((0, received), (1, received), (2, 0 if OURS else 15), (3, 2), (4, 4)):
        assert got[index].cpu()[:head].equal(wanted[index][:head]), f"output {index}"
    assert wanted[1][:received].all()


def check_performance_info(rank: int) -> None:
    """Both operators add; the late rank waits for nobody."""
    x, ids = torch.ones(4, 1024).bfloat16().npu(), torch.tensor([[0, 1]] * 4).int().npu()
    where = (ranks.GROUPS["ep"], SIZE, rank, 2)
    info = torch.full((SIZE,), 7).npu()
    for late in (False, True):
        if late:
            torch.npu.synchronize()
            before = info.cpu()
            time.sleep(LATE_S * (rank == LATE_RANK))
        out = torch_npu.npu_moe_distribute_dispatch_v2(x, ids, *where, performance_info=info)
    dispatched = info.cpu() - before
    time.sleep(LATE_S * (rank == LATE_RANK))
    weights = torch.ones(4, 2).npu()
    torch_npu.npu_moe_distribute_combine_v2(
        out[0], ids, out[2], out[4], weights, *where, performance_info=info
    )
    combined = info.cpu() - before - dispatched
    for waited in (dispatched, combined):
        assert waited[rank] == 0, waited
        if rank != LATE_RANK:
            assert 0.8 * LATE_S < waited[LATE_RANK] / 1e6 < 20 * LATE_S, waited


def check(rank: int) -> None:
    if not OURS:
        check_performance_info(rank)
    if PRODUCT == "A2":
        check_packed(rank)


PRODUCT = sys.argv[1]

if __name__ == "__main__":
    ranks.run(SIZE, check)
    print(f"attributes right on {PRODUCT}")
