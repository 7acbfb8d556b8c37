"""Host code that reads device memory through its address."""

import ctypes

import torch
import torch_npu  # noqa: F401

ones = torch.ones(4).npu()
torch.npu.synchronize()
print(ctypes.c_float.from_address(ones.data_ptr()).value, flush=True)
