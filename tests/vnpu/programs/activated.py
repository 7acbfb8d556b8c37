"""activate() instead of ascend-moe run, in a process that has loaded torch already; torchair too."""

import os

os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"

import torch

import ascend_moe.vnpu

ascend_moe.vnpu.activate(product="A2", devices=4)
ascend_moe.vnpu.activate()  # a second call does nothing

import torch_npu
import torchair

assert ascend_moe.vnpu.is_active()
assert (torch.ones(3).npu() * 2).tolist() == [2.0] * 3
assert callable(torchair.get_npu_backend)
print(torch_npu.npu.get_device_name(0), torch_npu.npu.device_count())
