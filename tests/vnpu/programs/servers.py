"""A communicator whose ranks stand in several servers: what HCCL answers, and that nobody reaches the other server.

usage: servers.py [answers | kernel | copy | touch] DEVICE...

A process per device, without torch. ``answers`` prints a line of JSON per rank. The others let rank 0 use the address
of the last rank's window that HCCL's private structure has (A3): of a kernel of ours, of a copy, of the host itself.
"""

import ctypes
import json
import os
import sys
from typing import Any

from cann_interface import VENDOR, call, read, there, tiling, u32

LIBRARY = ctypes.CDLL(str(VENDOR / "op_api" / "lib" / "libcust_opapi.so"))
DEVICES = [int(word) for word in sys.argv[2:]]
RANKS = "HcclRankGraphGetRanksByLayer"


def communicator(rank: int, root: ctypes.Array) -> tuple[ctypes.c_void_p, bytes]:
    comm = ctypes.c_void_p()
    assert call("aclrtSetDevice", DEVICES[rank]) == 0
    assert call("HcclCommInitRootInfo", len(DEVICES), root, rank, ctypes.byref(comm)) == 0
    name = ctypes.create_string_buffer(128)
    assert call("HcclGetCommName", comm, name) == 0
    return comm, name.value


def told() -> str:
    return (call("aclGetRecentErrMsg", result=ctypes.c_char_p) or b"").decode()


def numbers(function: str, comm: ctypes.c_void_p, *layer: int) -> list[int] | int:
    """A list that HCCL keeps, or the status."""
    entries, count = ctypes.POINTER(ctypes.c_uint32)(), u32()
    status = call(function, comm, *layer, ctypes.byref(entries), ctypes.byref(count))
    return status if status else entries[: count.value]


def graph(comm: ctypes.c_void_p, name: bytes) -> dict[str, Any]:
    layers = numbers("HcclRankGraphGetLayers", comm)
    assert isinstance(layers, list)
    found: dict[str, Any] = {"layers": layers, "behind": numbers(RANKS, comm, len(layers))}
    topology, size = u32(), u32()
    for layer in layers:
        assert call("HcclRankGraphGetTopoTypeByLayer", comm, layer, ctypes.byref(topology)) == 0
        assert call("HcclRankGraphGetRankSizeByLayer", comm, layer, ctypes.byref(size)) == 0
        ranks = numbers(RANKS, comm, layer)
        assert isinstance(ranks, list)
        assert len(ranks) == size.value
        sizes = numbers("HcclRankGraphGetInstSizeListByLayer", comm, layer)
        found[str(layer)] = [ranks, sizes, topology.value]
    assert call("HcomGetL0TopoTypeEx", name, ctypes.byref(topology), 0) == 0
    return found | {"HcomGetL0TopoTypeEx": topology.value}


def windows(name: bytes, stream: ctypes.c_void_p, way: str) -> str:
    """What the library says of the windows, by this way."""
    os.environ["ASCEND_MOE_WINDOWS"] = way
    base, provider = (ctypes.c_uint64 * len(DEVICES))(), ctypes.create_string_buffer(32)
    out = [ctypes.byref(u32()), ctypes.byref(u32()), ctypes.byref(ctypes.c_uint64())]
    told()
    status = LIBRARY.ascend_moe_windows(name, stream, *out, base, len(base), provider)
    return f"{status} {told()}" if status else provider.value.decode()


def address_of_window(
    comm: ctypes.c_void_p, name: bytes, stream: ctypes.c_void_p, rank: int
) -> int:
    """As the relation of HCCL's structure for A3 has it."""
    context = ctypes.c_uint64()
    made, out = tiling(name), ctypes.byref(context)
    assert call("HcclAllocComResourceByTiling", comm, stream, made, out) == 0
    relation = read(context.value + 2984 + 16 * rank + 8, ctypes.c_uint64)
    return read(relation + 8, ctypes.c_uint64)


def kernel(name: bytes, own: int, far: int) -> str:
    """The kernel of npu_check that writes a row into the next rank's window."""
    row, record = ctypes.create_string_buffer(512), ctypes.create_string_buffer(1 << 12)
    base = (ctypes.c_uint64 * 2)(own, far)
    size = ctypes.c_uint64(1 << 20)
    told()
    status = LIBRARY.ascend_moe_probe_row(name, 0, 2, size, base, 7, row, row, record)
    return f"{status} {told()}"


def copy(far: int) -> str:
    value, size, device_to_host = ctypes.c_uint64(), ctypes.c_size_t(8), 2
    told()
    status = call(
        "aclrtMemcpy", ctypes.byref(value), size, ctypes.c_void_p(far), size, device_to_host
    )
    return f"{status} {told()}"


def main() -> None:
    mode = sys.argv[1]
    root = ctypes.create_string_buffer(4108)
    assert call("HcclGetRootInfo", root) == 0
    children, rank = [], 0
    for other in range(1, len(DEVICES)):
        children.append(os.fork())
        if children[-1] == 0:
            rank = other
            break
    comm, name = communicator(rank, root)
    stream = ctypes.c_void_p()
    assert call("aclrtCreateStream", ctypes.byref(stream)) == 0
    if mode == "answers":
        found = graph(comm, name) if there("HcclRankGraphGetLayers") else {}
        found["windows"] = {
            way: windows(name, stream, way) for way in ("kfc", "tiling", "virtual-npu")
        }
        print(f"rank {rank}: {json.dumps(found)}\n", end="", flush=True)
    else:
        far = address_of_window(comm, name, stream, len(DEVICES) - 1 if rank == 0 else 0)
        if rank == 0 and mode == "touch":
            print(ctypes.c_float.from_address(far).value, flush=True)
        elif rank == 0:
            own = ctypes.c_uint64()
            assert (
                call("HcclGetHcclBuffer", comm, ctypes.byref(own), ctypes.byref(ctypes.c_uint64()))
                == 0
            )
            print(kernel(name, own.value, far) if mode == "kernel" else copy(far), flush=True)
    if rank == 0:
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
    os._exit(0)


if __name__ == "__main__":
    main()
