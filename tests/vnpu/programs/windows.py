"""The windows of a group, by each way that CANN has to them.

usage: windows.py RANKS CASE...

A case is the name of a provider or "any". Each rank of a real torch_npu group writes through its addresses
of the other ranks' windows, and reads in its own what they wrote. Prints "CASE rank R: TEXT" per rank, with
the text of aclGetRecentErrMsg where the library refuses.
"""

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import ranks
import torch
import torch.distributed as dist
import torch_npu

HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2
VENDOR = Path(os.environ["ASCEND_CUSTOM_OPP_PATH"].split(":")[0])


@dataclass
class Windows:
    rank: int
    ranks: int
    size: int
    base: list[int]
    provider: str


def find(group: str) -> Windows | str:
    """The windows, or why there are none."""
    library = ctypes.CDLL(str(VENDOR / "op_api" / "lib" / "libcust_opapi.so"))
    acl = ctypes.CDLL("libascendcl.so")
    acl.aclGetRecentErrMsg.restype = ctypes.c_char_p
    acl.aclGetRecentErrMsg()  # what came before is not ours
    rank, count, size = ctypes.c_uint32(), ctypes.c_uint32(), ctypes.c_uint64()
    base = (ctypes.c_uint64 * 64)()
    provider = ctypes.create_string_buffer(32)
    stream = ctypes.c_void_p(torch_npu.npu.current_stream().npu_stream)
    status = library.ascend_moe_windows(
        group.encode(),
        stream,
        ctypes.byref(rank),
        ctypes.byref(count),
        ctypes.byref(size),
        base,
        len(base),
        provider,
    )
    if status != 0:
        return f"{status} {acl.aclGetRecentErrMsg().decode()}"
    return Windows(
        rank.value, count.value, size.value, base[: count.value], provider.value.decode()
    )


def copy(to: int, source: int, kind: int) -> None:
    size = ctypes.c_size_t(8)
    call = ctypes.CDLL("libascendcl.so").aclrtMemcpy
    assert call(ctypes.c_void_p(to), size, ctypes.c_void_p(source), size, kind) == 0


def meet(what: str, rank: int) -> None:
    """Through the store: a collective would write into the windows."""
    store = dist.distributed_c10d._get_default_store()
    store.set(f"{what}/{rank}", "")
    store.wait([f"{what}/{other}" for other in range(dist.get_world_size())])


def exchange(case: str, windows: Windows) -> None:
    """The last 64 words of every window: word r is written by rank r, and says who wrote to whom."""
    end = windows.size - 8 * 64
    value = ctypes.c_uint64()
    for peer, address in enumerate(windows.base):
        value.value = (len(case) << 32) + (windows.rank << 16) + peer
        copy(address + end + 8 * windows.rank, ctypes.addressof(value), HOST_TO_DEVICE)
    meet(f"{case}/written", windows.rank)
    for peer in range(windows.ranks):
        copy(ctypes.addressof(value), windows.base[windows.rank] + end + 8 * peer, DEVICE_TO_HOST)
        assert value.value == (len(case) << 32) + (peer << 16) + windows.rank, (case, peer)
    meet(f"{case}/read", windows.rank)


def check(rank: int, size: int, *cases: str) -> None:
    bases = {}
    for case in cases:
        os.environ.pop("ASCEND_MOE_WINDOWS", None)
        if case != "any":
            os.environ["ASCEND_MOE_WINDOWS"] = case
        found = find(ranks.GROUPS["ep"])
        if isinstance(found, str):
            print(f"{case} rank {rank}: {' '.join(found.split())}\n", end="", flush=True)
            continue
        assert (found.rank, found.ranks) == (rank, size)
        assert len(set(found.base)) == size
        exchange(case, found)
        bases[case] = found.base
        print(f"{case} rank {rank}: {found.provider}, {found.size >> 20} MB\n", end="", flush=True)
    assert len({tuple(base) for base in bases.values()}) <= 1, bases
    meet("end", rank)
    os._exit(0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks.run(int(sys.argv[1]), check, int(sys.argv[1]), *sys.argv[2:], timeout=60)
