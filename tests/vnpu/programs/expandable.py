"""Expandable segments: tensors over many mapped pieces, growth and return, and address space with gaps.

Run with PYTORCH_NPU_ALLOC_CONF=expandable_segments:True.
"""

import ctypes
import os
import re
from pathlib import Path

import torch
import torch_npu  # noqa: F401
from device_calls import REFUSED, call, refusal

MB, GB = 1 << 20, 1 << 30
DEVICE_TO_HOST = 2


class Properties(ctypes.Structure):
    """aclrtPhysicalMemProp, for huge pages of a device."""

    _fields_ = [(name, ctypes.c_int) for name in ("handle", "allocation", "attribute")] + [
        ("device", ctypes.c_uint32),
        ("location", ctypes.c_int),
        ("reserve", ctypes.c_uint64),
    ]


def of_device(device: int) -> Properties:
    hbm_huge, on_device = 4, 1
    return Properties(0, 0, hbm_huge, device, on_device, 0)


def resident_bytes() -> int:
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return int(re.search(r"^Rss:\s+(\d+) kB", rollup, re.MULTILINE)[1]) * 1024


def tensors() -> None:
    small = torch.arange(1000.0).npu()
    large = torch.arange(30_000_000, dtype=torch.int32).npu()  # 120 MB: pieces are of 20
    assert torch.equal((large * 2).cpu(), torch.arange(30_000_000, dtype=torch.int32) * 2)
    assert large.narrow(0, 5 * MB - 2, 4).cpu().tolist() == list(range(5 * MB - 2, 5 * MB + 2))
    del large
    torch.npu.empty_cache()
    assert torch.npu.memory_reserved() <= 20 * MB
    assert torch.equal(small.cpu(), torch.arange(1000.0))
    before = resident_bytes()
    untouched = torch.empty(20 * GB, dtype=torch.int8, device="npu")
    untouched[-1] = 1
    assert untouched[-1].item() == 1
    assert resident_bytes() - before < GB
    del untouched
    torch.npu.empty_cache()
    torch.npu.set_per_process_memory_fraction(0.5)
    total = torch.npu.get_device_properties(0).total_memory
    told = refusal(lambda: torch.empty(int(total * 0.6), dtype=torch.int8, device="npu"))
    assert "out of memory" in told, told


def gaps() -> None:
    """The functions themselves: what they refuse, and that a gap is not memory."""
    page = 2 * MB
    address, handle, other = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    size = ctypes.c_size_t()
    assert (
        call("aclrtMemGetAllocationGranularity", ctypes.byref(of_device(0)), 0, ctypes.byref(size))
        == 0
    )
    assert size.value == page
    assert call("aclrtReserveMemAddress", ctypes.byref(address), 0, 0, None, 0) != 0
    assert call("aclrtReserveMemAddress", ctypes.byref(address), 8 * page, 0, None, 2) != 0
    assert call("aclrtReserveMemAddress", ctypes.byref(address), 8 * page, 0, None, 1) == 0
    start = address.value
    assert (
        call("aclrtMallocPhysical", ctypes.byref(handle), page, ctypes.byref(of_device(99)), 0) != 0
    )
    assert (
        call("aclrtMallocPhysical", ctypes.byref(handle), page, ctypes.byref(of_device(0)), 0) == 0
    )
    assert (
        call("aclrtMallocPhysical", ctypes.byref(other), page, ctypes.byref(of_device(1)), 0) == 0
    )
    wrong = (
        (start, 2 * page, 0, handle),  # another size than that of the memory
        (start + 8 * page, page, 0, handle),  # behind the range
        (start, page, 4096, handle),  # an offset
    )
    for where, bytes_, offset, memory in wrong:
        assert call("aclrtMapMem", where, bytes_, offset, memory, 0) != 0
    assert call("aclrtMapMem", start + page, page, 0, handle, 0) == 0
    assert call("aclrtMapMem", start + page, page, 0, handle, 0) == REFUSED  # mapped already
    assert call("aclrtMapMem", start + 3 * page, page, 0, other, 0) == REFUSED  # another device
    assert call("aclrtMemset", start + page, page, 7, page) == 0
    copy = ctypes.create_string_buffer(8)
    read = ("aclrtMemcpy", copy, 8)
    assert call(*read, start + 2 * page - 8, 8, DEVICE_TO_HOST) == 0
    assert copy.raw == b"\7" * 8
    for at in (start, start + 2 * page - 4, start + 2 * page):  # before, across the end, behind
        assert call(*read, at, 8, DEVICE_TO_HOST) == REFUSED
    assert call("aclrtReleaseMemAddress", start) == REFUSED  # still mapped
    assert call("aclrtFreePhysical", handle) == 0  # stays as long as it is mapped
    assert call(*read, start + page, 8, DEVICE_TO_HOST) == 0
    assert call("aclrtUnmapMem", start + page) == 0
    assert call("aclrtUnmapMem", start + page) == REFUSED
    assert call(*read, start + page, 8, DEVICE_TO_HOST) == REFUSED
    assert call("aclrtReleaseMemAddress", start) == 0
    assert call("aclrtFreePhysical", other) == 0


def the_host_may_not_touch_it() -> None:
    tensor = torch.ones(4).npu()
    torch.npu.synchronize()
    child = os.fork()
    if child == 0:
        ctypes.c_float.from_address(tensor.data_ptr()).value  # noqa: B018
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -11, status


for part in (tensors, gaps, the_host_may_not_touch_it):
    part()
    print(f"{part.__name__}: right", flush=True)
