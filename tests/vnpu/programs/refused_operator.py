"""An operator that nobody has, caught by the program: what it calls next must not return silently.

After an error torch_npu drops what its task queue holds and still answers with tensors.
"""

import torch
import torch_npu


def refusal(operator) -> str:
    try:
        operator(torch.ones(4).npu())
        torch.npu.synchronize()
    except RuntimeError as error:
        return str(error)
    return "no error"


for _ in range(3):
    told = refusal(torch_npu.fast_gelu)
    assert told != "no error"
    print(told)
print("refused three times")
