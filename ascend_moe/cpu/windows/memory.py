"""Anonymous shared memory: made by one rank, opened by the others through its process."""

from __future__ import annotations

import mmap
import os
from typing import Final, NamedTuple

import torch
from torch import Tensor

PAGE: Final = mmap.PAGESIZE


class Shared(NamedTuple):
    """A mapping and where it begins."""

    bytes: Tensor
    """uint8, all of it; keeps the mapping alive."""
    address: int


def create(size: int) -> int:
    """A file descriptor of new memory, all of whose pages are reserved.

    Raises OSError (ENOSPC, ENOMEM) instead of letting a later write end the process with SIGBUS.
    """
    descriptor = os.memfd_create("ascend-moe", os.MFD_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def map_descriptor(descriptor: int, size: int) -> Shared:
    """Maps memory of this process."""
    found = torch.frombuffer(mmap.mmap(descriptor, size), dtype=torch.uint8)
    return Shared(found, found.data_ptr())


def map_of_process(pid: int, descriptor: int, size: int) -> Shared:
    """Maps memory that another process holds open. Raises OSError when this process may not."""
    own = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(own).st_size != size:
            raise OSError(f"descriptor {descriptor} of process {pid} is something else")
        return map_descriptor(own, size)
    finally:
        os.close(own)
