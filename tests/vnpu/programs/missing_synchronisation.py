"""A copy that nobody waits for: with a delay before every task the host still sees the old data."""

import torch
import torch_npu  # noqa: F401

source = torch.ones(4).npu()
torch.npu.synchronize()
host = torch.zeros(4).pin_memory()
host.copy_(source * 5, non_blocking=True)
early = host.tolist()
torch.npu.synchronize()
assert early == [0.0] * 4, early
assert host.tolist() == [5.0] * 4, host
print("seen early: old data; after synchronize: new data")
