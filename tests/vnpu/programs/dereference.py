"""Host code that reads device memory through its address.

usage: dereference.py [tensor | window | forked]
"""

import ctypes
import os
import sys

import torch
import torch_npu  # noqa: F401


def window_address() -> int:
    """The device address of a window like those of a communicator."""
    library = ctypes.CDLL("libascendcl.so")
    library._ZN7standin9MapWindowEPvm.restype = ctypes.c_void_p
    host = ctypes.create_string_buffer(4096)
    return library._ZN7standin9MapWindowEPvm(host, ctypes.c_size_t(len(host)))


def address_of_child() -> int:
    """In a child that has opened a device of its own; the parent passes its end on."""
    child = os.fork()
    if child == 0:
        return torch.empty(1 << 22, device="npu").data_ptr()
    _, status = os.waitpid(child, 0)
    os.kill(os.getpid(), -os.waitstatus_to_exitcode(status))
    raise AssertionError("unreachable")


which = sys.argv[1] if sys.argv[1:] else "tensor"
ones = torch.ones(4).npu()
torch.npu.synchronize()
address = window_address() if which == "window" else ones.data_ptr()
if which == "forked":
    address = address_of_child()
print(ctypes.c_float.from_address(address).value, flush=True)
