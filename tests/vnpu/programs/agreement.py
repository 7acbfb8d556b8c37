"""Checks across ranks before a device call: one meeting per group in the store, and the group's own window size."""

import os

import ranks
import torch
import torch.distributed as dist
import torch_npu

import ascend_moe
from ascend_moe import ConstraintError

SIZE = 2


def call(rank: int, group: dist.ProcessGroup, **changes):
    """A legal call that needs a window of 72 MB with CANN's kernels."""
    generator = torch.Generator().manual_seed(rank)
    ids = torch.rand(64, 32, generator=generator).argsort(dim=1)[:, :8].int()
    arguments = {
        "x": torch.randn(64, 7168, generator=generator).bfloat16().npu(),
        "expert_ids": ids.npu(),
        "group_ep": ascend_moe.hccl_comm_name(group, rank),
        "ep_world_size": SIZE,
        "ep_rank_id": rank,
        "moe_expert_num": 32,
    }
    return ascend_moe.npu_moe_distribute_dispatch_v2(**arguments | changes)


def refused(rank: int, group: dist.ProcessGroup, **changes) -> str:
    try:
        call(rank, group, **changes)
    except ConstraintError as error:
        return str(error)
    raise AssertionError(f"rank {rank}: {changes} was not refused")


def disagreement(rank: int) -> None:
    """Told on both ranks; afterwards the group serves a legal call."""
    group = dist.new_group(list(range(SIZE)))
    text = refused(rank, group, moe_expert_num=64 if rank else 32)
    assert "X-40 error moe_expert_num: ranks disagree: 32 on rank 0, 64 on rank 1" in text, text
    text = refused(rank, group, quant_mode=1 if rank else 0)
    assert "D-12" in text, text
    assert rank or "rank 1 refuses the call" in text, text
    assert int(call(rank, group)[3].sum().cpu()) > 0


def own_window(rank: int) -> None:
    """``hccl_buffer_size`` of the group counts, not HCCL_BUFFSIZE."""
    options = torch_npu._C._distributed_c10d.ProcessGroupHCCL.Options()
    # Ours: 256 KiB + 4 * (64 * 8 rows of 7168 bytes + 2 lists of 4096 bytes), in two buffers.
    needed = 72 if os.environ["ASCEND_MOE_KERNELS"] == "off" else 8
    options.hccl_config = {"hccl_buffer_size": needed - 1}
    small = dist.new_group(list(range(SIZE)), pg_options=options)
    text = refused(rank, small)
    told = f"SMALL: {needed - 1} MB (group), NEEDED_HCCL_BUFFSIZE = {needed} MB"
    assert told in text, text
    options.hccl_config = {"hccl_buffer_size": needed}
    call(rank, dist.new_group(list(range(SIZE)), pg_options=options))


def both(rank: int) -> None:
    disagreement(rank)
    own_window(rank)


ranks.run(SIZE, both)
print("agreement right")
