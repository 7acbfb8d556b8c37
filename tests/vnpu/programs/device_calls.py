"""Calls of the runtime library past torch_npu, and the text of what torch refuses."""

import ctypes
from collections.abc import Callable
from typing import Any

import torch

REFUSED = 107000  # ACL_ERROR_RT_PARAM_INVALID


def call(name: str, *arguments: Any) -> int:
    """An int is passed as 64 bits."""
    function = getattr(ctypes.CDLL("libascendcl.so"), name)
    return function(*(ctypes.c_uint64(one) if isinstance(one, int) else one for one in arguments))


def address_of(buffer: Any) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def refusal(operator: Callable[[], object]) -> str:
    """What the call itself says, without a synchronisation."""
    try:
        operator()
    except RuntimeError as error:
        return str(error)
    torch.npu.synchronize()
    return "no error"
