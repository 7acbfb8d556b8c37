"""Anonymous shared memory: made by one rank, opened by the others through its process."""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Final, NamedTuple

import torch
from torch import Tensor

from ascend_moe.available import require_available

PAGE: Final = mmap.PAGESIZE
_ADD_SEALS: Final = 1033
_GET_SEALS: Final = 1034
_SEALS: Final = 1 | 2 | 4
"""Of memfd_create: nobody changes its seals, or its size, of which a later access would end a process (SIGBUS)."""


class Shared(NamedTuple):
    """A mapping and where it begins."""

    bytes: Tensor
    """uint8, all of it; keeps the mapping alive."""
    address: int


def create(size: int) -> int:
    """A file descriptor of new memory, all of whose pages are reserved.

    Raises OSError (ENOSPC, ENOMEM) instead of letting a later write end the process with SIGBUS, or the pages that are
    reserved end any process of the machine or the cgroup.
    """
    require_available(size)
    descriptor = os.memfd_create("ascend-moe", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(descriptor, 0, size)
        fcntl.fcntl(descriptor, _ADD_SEALS, _SEALS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def map_descriptor(descriptor: int, size: int) -> Shared:
    """Maps memory of this process."""
    mapped = mmap.mmap(descriptor, size)
    with torch.inference_mode(False):  # the next call may be made outside of it
        found = torch.frombuffer(mapped, dtype=torch.uint8)
    return Shared(found, found.data_ptr())


def map_of_process(pid: int, descriptor: int, size: int) -> Shared:
    """Maps memory that another process holds open. Raises OSError when this process may not."""
    own = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(own).st_size != size or fcntl.fcntl(own, _GET_SEALS) & _SEALS != _SEALS:
            raise OSError(f"descriptor {descriptor} of process {pid} is something else")
        return map_descriptor(own, size)
    finally:
        os.close(own)
