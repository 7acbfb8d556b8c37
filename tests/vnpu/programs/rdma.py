"""The windows and queues of a group that spans A2 servers, as the library finds them in HCCL's private context.

usage: rdma.py CASES DEVICE...

CASES is JSON, a list of objects: ``name``; ``patch``, what ASCEND_MOE_VNPU_HCCL_PATCH spoils; ``first``, true when
another algorithm is asked for before. A process per device, without torch, makes a communicator per case and prints
"CASE rank R: TEXT", where the library refuses its text, else JSON of what it found and of what lies there.
"""

import ctypes
import json
import os
import sys
from typing import Any

from cann_interface import VENDOR, call, read, tiling, u32

HOST_TO_DEVICE = 1
LIBRARY = ctypes.CDLL(str(VENDOR / "op_api" / "lib" / "libcust_opapi.so"))
PATCH = "ASCEND_MOE_VNPU_HCCL_PATCH"
u64 = ctypes.c_uint64


def communicator(
    rank: int, devices: list[int], root: ctypes.Array
) -> tuple[ctypes.c_void_p, bytes]:
    comm, name = ctypes.c_void_p(), ctypes.create_string_buffer(128)
    assert call("HcclCommInitRootInfo", len(devices), root, rank, ctypes.byref(comm)) == 0
    assert call("HcclGetCommName", comm, name) == 0
    return comm, name.value


def told() -> str:
    return (call("aclGetRecentErrMsg", result=ctypes.c_char_p) or b"").decode()


def write(address: int, value: int) -> None:
    number, size = u64(value), ctypes.c_size_t(8)
    at = ctypes.c_void_p(address)
    assert call("aclrtMemcpy", at, size, ctypes.byref(number), size, HOST_TO_DEVICE) == 0


def queue(tables: int, peer: int) -> dict[str, int]:
    """The send queue to a peer and its regions, by the offsets of HCCL's headers."""
    at = read(tables + 24, u64) + 64 * peer
    regions = read(read(tables + 56, u64) + 16 * peer + 8, u64)
    head, tail = read(at + 24, u64), read(at + 32, u64)
    return {
        "number": read(at, u32),
        "element": read(at + 16, u32),
        "depth": read(at + 20, u32),
        "words": [read(head, u32), read(tail, u32)] if head else [],
        "last element": read(read(at + 8, u64) + 64 * 32767, u64) if head else -1,
        "keys": [read(regions + 24 * region + 16, u32) for region in range(4)],
    }


def find(name: bytes, stream: ctypes.c_void_p, ranks: int) -> dict[str, Any] | str:
    rank, count, size = u32(), u32(), u64()
    base, card = (u64 * ranks)(), (u64 * 2)()
    out = [ctypes.byref(rank), ctypes.byref(count), ctypes.byref(size)]
    told()
    status = LIBRARY.ascend_moe_windows_and_queues(name, stream, *out, base, ranks, card)
    if status:
        return f"{status} {told()}"
    found = {"rank": [rank.value, count.value], "bytes": size.value, "base": list(base)}
    return found | {"tables": card[0], "output": card[1]}


def look(found: dict[str, Any], comm: ctypes.c_void_p) -> dict[str, Any]:
    """What lies there."""
    own, tables = u64(), found["tables"]
    assert call("HcclGetHcclBuffer", comm, ctypes.byref(own), ctypes.byref(u64())) == 0
    return {
        "own": own.value,
        "tables": [read(tables, u32), read(tables + 4, u32)],
        "queues": [queue(tables, peer) for peer in range(found["rank"][1])],
    }


def exchange(found: dict[str, Any], comm: ctypes.c_void_p, stream: ctypes.c_void_p) -> list[int]:
    """Each rank writes its number into the windows that it has, word r of the window's end; what came."""
    end = found["bytes"] - 8 * 64
    for base in filter(None, found["base"]):
        write(base + end + 8 * found["rank"][0], 1 + found["rank"][0])
    assert call("HcclBarrier", comm, stream) == 0
    assert call("aclrtSynchronizeStream", stream) == 0
    own = found["base"][found["rank"][0]]
    return [read(own + end + 8 * peer, u64) for peer in range(found["rank"][1])]


def run(case: dict[str, Any], rank: int, devices: list[int], root: ctypes.Array) -> None:
    comm, name = communicator(rank, devices, root)
    stream = ctypes.c_void_p()
    assert call("aclrtCreateStream", ctypes.byref(stream)) == 0
    if case.get("first"):
        context = u64()
        made = tiling(name, (18, b"BatchWrite=level1:fullmesh"))
        assert call("HcclAllocComResourceByTiling", comm, stream, made, ctypes.byref(context)) == 0
    os.environ[PATCH] = case.get("patch", "")
    found = find(name, stream, len(devices))
    if isinstance(found, dict):
        if not case.get("patch"):  # where it is spoilt, other ranks have refused
            found |= look(found, comm) | {"came": exchange(found, comm, stream)}
        found = json.dumps(found)
    print(f"{case['name']} rank {rank}: {' '.join(found.split())}\n", end="", flush=True)


def main() -> None:
    cases, devices = json.loads(sys.argv[1]), [int(word) for word in sys.argv[2:]]
    roots = [ctypes.create_string_buffer(4108) for _ in cases]
    for root in roots:
        assert call("HcclGetRootInfo", root) == 0
    children, rank = [], 0
    for other in range(1, len(devices)):
        children.append(os.fork())
        if children[-1] == 0:
            rank = other
            break
    assert call("aclrtSetDevice", devices[rank]) == 0
    for case, root in zip(cases, roots, strict=True):
        run(case, rank, devices, root)
    if rank == 0:
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
    os._exit(0)


if __name__ == "__main__":
    main()
