"""What random worlds do not draw: packed int4 tokens, and the waits that performance_info is told.

usage: attributes.py PRODUCT

Our kernels (ASCEND_MOE_KERNELS=require) have a handle of their own.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ranks
import torch
import torch_npu

from ascend_moe.reference import dispatch_world

SIZE = 2
OURS = os.environ.get("ASCEND_MOE_KERNELS") == "require"
LATE_RANK, LATE_S, LARGE_US = 1, 0.3, 10**9


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
    """The late rank is charged, at its index, by those who wait for it; the tensors of the steps are recorded."""
    x, ids = torch.ones(4, 1024).bfloat16().npu(), torch.tensor([[0, 1]] * 4).int().npu()
    where = (ranks.GROUPS["ep"], SIZE, rank, 2)
    info = torch.zeros(SIZE, dtype=torch.int64).npu()
    weights = torch.ones(4, 2).npu()

    def dispatch() -> tuple[torch.Tensor, ...]:
        return torch_npu.npu_moe_distribute_dispatch_v2(x, ids, *where, performance_info=info)

    def combine() -> None:
        torch_npu.npu_moe_distribute_combine_v2(
            out[0], ids, out[2], out[4], weights, *where, performance_info=info
        )

    out, steps = dispatch(), []
    for late in (dispatch, combine):
        for before in (0, LARGE_US):
            torch.npu.synchronize()
            info.fill_(before)
            time.sleep(LATE_S * (rank == LATE_RANK))
            late()
            steps.append(info.cpu() - before)
            if rank == LATE_RANK:
                continue
            waited = int(steps[-1][LATE_RANK])
            if before and PRODUCT == "A3":  # the larger of the two; A2 adds
                assert waited == 0, steps
            else:
                assert 0.8 * LATE_S < waited / 1e6 < 40 * LATE_S, steps
                assert int(steps[-1].argmax()) == LATE_RANK, steps
    torch.save(torch.stack(steps[::2]), FOLDER / f"waits_rank{rank}.pt")


def check(rank: int) -> None:
    if ranks.has_waits():
        check_performance_info(rank)
    if PRODUCT == "A2":
        check_packed(rank)


def blamed() -> str:
    """What `ascend-moe stragglers` reads in the recorded files."""
    files = sorted(map(str, FOLDER.iterdir()))
    command = [sys.executable, "-m", "ascend_moe", "stragglers", *files]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


PRODUCT = sys.argv[1]
FOLDER = Path(tempfile.mkdtemp())

if __name__ == "__main__":
    try:
        ranks.run(SIZE, check)
        table = blamed() if ranks.has_waits() else ""
    finally:
        shutil.rmtree(FOLDER)
    assert not ranks.has_waits() or f"rank {LATE_RANK} is slow" in table, table
    print(f"attributes right on {PRODUCT}")
