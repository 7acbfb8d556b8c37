"""Windows of a communicator: large ones cost nothing until they are touched, and /dev/shm is not used."""

import re
from pathlib import Path

import ranks
import torch
import torch.distributed as dist
import torch_npu

SIZE, BUFFER_MB = 2, 4096


def resident_mb() -> int:
    """Memory in shared mappings that this process has touched."""
    (kilobytes,) = re.findall(r"RssShmem:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) >> 10


def mapped_mb() -> int:
    """Address range of the communicators' files."""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "memfd:ascend_moe_hccl" in line:
            start, end = (int(bound, 16) for bound in line.split()[0].split("-"))
            total += end - start
    return total >> 20


def check(rank: int) -> None:
    before = mapped_mb()
    options = torch_npu._C._distributed_c10d.ProcessGroupHCCL.Options()
    options.hccl_config = {"hccl_buffer_size": BUFFER_MB}
    group = dist.new_group(list(range(SIZE)), pg_options=options)
    tensor = torch.ones(1000).npu()
    dist.all_reduce(tensor, group=group)
    assert tensor.cpu().eq(SIZE).all()
    # Of every rank twice the buffer: the "in" and the "out" half.
    assert 0 <= mapped_mb() - before - SIZE * 2 * BUFFER_MB < 8, (before, mapped_mb())
    assert resident_mb() < 64, resident_mb()
    assert not [path.name for path in Path("/dev/shm").iterdir() if "ascend" in path.name]


if __name__ == "__main__":
    ranks.run(SIZE, check)
    print("windows right")
