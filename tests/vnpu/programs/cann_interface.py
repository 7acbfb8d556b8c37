"""What the stand-in answers to the functions that the host library calls, without that library or torch.

usage: cann_interface.py

Two ranks, on as many servers as there are, make a communicator; rank 0 calls every function and reads every structure
of the rows in scripts/generators/cann_interface.py, and prints one JSON object: row -> what came out. A function that
this CANN does not have is left out. Structures are read here by the offsets of CANN's headers.

"""

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

from ascend_moe import vnpu

vnpu.activate()

PROCESS = ctypes.CDLL(None)
SIZE, W, MB = 2, 4 << 20, 1 << 20
DEVICE_TO_HOST = 2
BF16 = 27
VENDOR = Path(os.environ["ASCEND_CUSTOM_OPP_PATH"].split(":")[0])
SERVERS = int(os.environ.get("ASCEND_MOE_VNPU_SERVERS") or 1)


def call(name: str, *arguments: Any, result: Any = ctypes.c_int) -> Any:
    """An int is passed as 64 bits, as all integers of these functions but a few that come in registers anyway."""
    function = getattr(PROCESS, name)
    function.restype = result
    passed = [ctypes.c_int64(one) if isinstance(one, int) else one for one in arguments]
    return function(*passed)


def there(name: str) -> bool:
    return hasattr(PROCESS, name)


def u32() -> ctypes.c_uint32:
    return ctypes.c_uint32()


def read(address: int, kind: Any) -> int:
    """A number in device memory."""
    value = kind()
    size = ctypes.sizeof(value)
    assert (
        call(
            "aclrtMemcpy",
            ctypes.byref(value),
            size,
            ctypes.c_void_p(address),
            size,
            DEVICE_TO_HOST,
        )
        == 0
    )
    return value.value


def communicator(rank: int, root: ctypes.Array) -> tuple[ctypes.c_void_p, bytes]:
    comm = ctypes.c_void_p()
    assert call("aclrtSetDevice", rank) == 0
    assert call("HcclCommInitRootInfo", SIZE, root, rank, ctypes.byref(comm)) == 0
    name = ctypes.create_string_buffer(128)
    assert call("HcclGetCommName", comm, name) == 0
    return comm, name.value


def own_buffer(comm: ctypes.c_void_p) -> int:
    address = ctypes.c_uint64()
    size = ctypes.c_uint64()
    assert call("HcclGetHcclBuffer", comm, ctypes.byref(address), ctypes.byref(size)) == 0
    return address.value


def windows(name: bytes, stream: ctypes.c_void_p) -> list[int]:
    """Where the windows are, from the stand-in's own interface: the witness of what HCCL's answer."""
    os.environ["ASCEND_MOE_WINDOWS"] = "virtual-npu"
    library = ctypes.CDLL(str(VENDOR / "op_api" / "lib" / "libcust_opapi.so"))
    base = (ctypes.c_uint64 * SIZE)()
    provider = ctypes.create_string_buffer(32)
    out = [ctypes.byref(u32()), ctypes.byref(u32()), ctypes.byref(ctypes.c_uint64())]
    assert library.ascend_moe_windows(name, stream, *out, base, SIZE, provider) == 0
    return list(base)


def acl(rank: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    call("aclGetRecentErrMsg", result=ctypes.c_char_p)
    found["aclGetRecentErrMsg"] = call("aclGetRecentErrMsg", result=ctypes.c_char_p)
    found["aclrtGetSocName"] = call("aclrtGetSocName", result=ctypes.c_char_p).decode()
    number, wide = u32(), ctypes.c_int64()
    assert call("aclrtGetDevice", ctypes.byref(number)) == 0
    found["aclrtGetDevice"] = number.value
    vector_cores = 1
    assert call("aclGetDeviceCapability", rank, vector_cores, ctypes.byref(wide)) == 0
    found["aclGetDeviceCapability"] = wide.value
    assert call("aclrtGetResInCurrentThread", vector_cores, ctypes.byref(number)) == 0
    found["aclrtGetResInCurrentThread"] = number.value
    types = {"float": 0, "bf16": BF16, "int8": 2, "int4": 29, "unknown": 99}
    sizes = {
        name: call("aclDataTypeSize", kind, result=ctypes.c_size_t) for name, kind in types.items()
    }
    found["aclDataTypeSize"] = sizes
    version = ctypes.create_string_buffer(128)
    answers: dict[str, Any] = {}
    for package in ("hcomm", "runtime", "CANN"):
        status = call("aclsysGetVersionStr", package.encode(), version)
        answers[package] = version.value.decode() if status == 0 else status
    found["aclsysGetVersionStr"] = answers
    old = ctypes.create_string_buffer(512)
    assert call("aclsysGetCANNVersion", 0, old) == 0
    found["aclsysGetCANNVersion"] = old.value.decode()
    report = "_ZN13error_message23ReportUserDefinedErrMsgEPKcS1_z"
    texts = {"short": b"x", "long": b"x" * 1024}
    found["error_message::ReportUserDefinedErrMsg"] = {
        name: call(report, b"EU0000", text) for name, text in texts.items()
    }
    call("aclGetRecentErrMsg", result=ctypes.c_char_p)
    found["MsprofRegTypeInfo"] = call("MsprofRegTypeInfo", 20000, 0x5E000, b"name")
    found["MsprofReportApi"] = call("MsprofReportApi", 1, ctypes.create_string_buffer(40))
    return found


def tensors() -> dict[str, Any]:
    sizes, strides = (ctypes.c_int64 * 2)(2, 3), (ctypes.c_int64 * 2)(5, 1)
    storage = (ctypes.c_int64 * 1)(100)
    nd = 2
    tensor = ctypes.c_void_p(
        call(
            "aclCreateTensor",
            *(sizes, 2, BF16, strides, 7, nd, storage, 1, ctypes.c_void_p(0x5000)),
            result=ctypes.c_void_p,
        )
    )
    found: dict[str, Any] = {}
    for name in ("aclGetViewShape", "aclGetViewStrides"):
        values, count = ctypes.POINTER(ctypes.c_int64)(), ctypes.c_uint64()
        assert call(name, tensor, ctypes.byref(values), ctypes.byref(count)) == 0
        found[name] = values[: count.value]
    offset, kind, address = ctypes.c_int64(), u32(), ctypes.c_uint64()
    assert call("aclGetViewOffset", tensor, ctypes.byref(offset)) == 0
    assert call("aclGetDataType", tensor, ctypes.byref(kind)) == 0
    assert call("aclGetRawTensorAddr", tensor, ctypes.byref(address)) == 0
    found["aclGetViewOffset"], found["aclGetDataType"] = offset.value, kind.value
    found["aclGetRawTensorAddr"] = address.value
    return found


def group(comm: ctypes.c_void_p, name: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    number, handle = u32(), ctypes.c_void_p()
    address, size = ctypes.c_uint64(), ctypes.c_uint64()
    for function in ("HcclGetRankSize", "HcclGetRankId"):
        assert call(function, comm, ctypes.byref(number)) == 0
        found[function] = number.value
    assert call("HcclGetHcclBuffer", comm, ctypes.byref(address), ctypes.byref(size)) == 0
    found["HcclGetHcclBuffer"] = size.value
    for function in ("HcclCommGetHandleWithName", "HcomGetCommHandleByGroup"):
        if there(function):
            assert call(function, name, ctypes.byref(handle)) == 0
            found[function] = "comm" if handle.value == comm.value else "another"
    entries = ctypes.POINTER(ctypes.c_uint32)()
    out = [ctypes.byref(entries), ctypes.byref(number)]
    assert call("HcclRankGraphGetLayers", comm, *out) == 0
    found["HcclRankGraphGetLayers"] = entries[: number.value]
    assert call("HcclRankGraphGetInstSizeListByLayer", comm, 0, *out) == 0
    found["HcclRankGraphGetInstSizeListByLayer"] = entries[: number.value]
    assert call("HcclRankGraphGetRanksByLayer", comm, 0, *out) == 0
    found["HcclRankGraphGetRanksByLayer"] = by_layer = {"0": entries[: number.value]}
    status = call("HcclRankGraphGetRanksByLayer", comm, 1, *out)
    by_layer["1"] = status or entries[: number.value]
    assert call("HcomGetL0TopoTypeEx", name, ctypes.byref(number), 0) == 0
    found["HcomGetL0TopoTypeEx"] = number.value
    return found


def kfc(comm: ctypes.c_void_p, rank: int) -> dict[str, Any]:
    """The functions of 9.x; collective on A3."""
    if not there("HcclKfcAllocOpArgs"):
        return {}

    def remote(of: int) -> list[int]:
        address, size = ctypes.c_uint64(), ctypes.c_uint64()
        status = call(
            "HcclGetRemoteIpcHcclBuf", comm, of, ctypes.byref(address), ctypes.byref(size)
        )
        return [status, address.value, size.value]

    early = remote(1 - rank)[0]
    arguments, context = ctypes.c_void_p(), ctypes.c_void_p()
    algorithm = b"AlltoAll=level0:fullmesh;level1:pairwise"
    found: dict[str, Any] = {
        "HcclKfcAllocOpArgs": call("HcclKfcAllocOpArgs", ctypes.byref(arguments)),
        "HcclKfcOpArgsSetCommEngine": {
            "CPU": call("HcclKfcOpArgsSetCommEngine", arguments, 0),
            "AIV": call("HcclKfcOpArgsSetCommEngine", arguments, 4),
        },
        "HcclKfcOpArgsSetAlgConfig": {
            "long": call("HcclKfcOpArgsSetAlgConfig", arguments, b"x" * 128),
            "ours": call("HcclKfcOpArgsSetAlgConfig", arguments, algorithm),
        },
        "HcclCreateOpResCtx": call("HcclCreateOpResCtx", comm, 8, arguments, ctypes.byref(context)),
        "HcclKfcFreeOpArgs": call("HcclKfcFreeOpArgs", arguments),
    }
    buffers: dict[str, Any] = {"early": early}
    if found["HcclCreateOpResCtx"] == 0:
        buffers |= {"own": remote(rank), "peer": remote(1 - rank)}
    return found | {"HcclGetRemoteIpcHcclBuf": buffers}


ALL_TO_ALL = (8, b"AlltoAll=level0:fullmesh;level1:pairwise")


def tiling(name: bytes, task: tuple[int, bytes] = ALL_TO_ALL) -> ctypes.Array:
    """Mc2InitTilingInner, then Mc2CcTilingInner at 64."""
    made = ctypes.create_string_buffer(64 + 512)
    op, algorithm = task
    ctypes.memmove(ctypes.addressof(made) + 64 + 144, algorithm, len(algorithm))
    for offset, value in ((0, 100), (4, 1), (8, 64), (64 + 272, op)):
        ctypes.memmove(ctypes.addressof(made) + offset, ctypes.byref(ctypes.c_uint32(value)), 4)
    aiv = 3
    ctypes.memset(ctypes.addressof(made) + 64 + 13, aiv, 1)
    ctypes.memmove(ctypes.addressof(made) + 64 + 16, name, len(name))
    return made


HIERARCHY = (18, b"BatchWrite=level1:hierarchy")


def memory(address: int) -> str:
    """Whether an address is one of device memory; a far one is not for a copy."""
    value = ctypes.create_string_buffer(4)
    size = ctypes.c_size_t(4)
    if not address:
        return "none"
    if call("aclrtMemcpy", value, size, ctypes.c_void_p(address), size, DEVICE_TO_HOST) == 0:
        return "device memory"
    return "out of reach"


def region(at: int) -> list[Any]:
    """MemDetails: bytes, address, key."""
    bytes_, address, key = (read(at + offset, ctypes.c_uint64) for offset in (0, 8, 16))
    return [bytes_, address, "key" if key & 0xFFFFFFFF else 0]


def between_servers(at: int, rank: int, peer: int) -> dict[str, Any]:
    """What there is beside on A2: tables of ranks, queues and regions, of the peer's entries."""
    short, long = ctypes.c_uint32, ctypes.c_uint64
    table, size, info_size, info, capability, capability_size = (
        read(at + 8880 + 8 * word, long) for word in range(6)
    )
    entry = table + 120 * peer
    into, local_in, local_out = (region(entry + offset) for offset in (0, 48, 72))
    queue = read(info + 24, long) + 64 * peer
    regions = read(info + 56, long) + 16 * peer
    at_regions = read(regions + 8, long)
    same = [region(at_regions + 24 * index) for index in range(3)] == [local_in, into, local_out]
    words = [read(queue + offset, short) for offset in (0, 16, 20, 40, 56)]
    places = [memory(read(queue + offset, long)) for offset in (8, 24, 32, 48)]
    into[1] = memory(into[1])
    found = {
        "HcclCombinOpParam.ibverbsData": memory(table),
        "HcclCombinOpParam.ibverbsDataSize": size,
        "HcclCombinOpParam.sizeOfAiRMAInfo": info_size,
        "HcclCombinOpParam.aiRMAInfo": memory(info),
        "HcclCombinOpParam.capabilityPtr": read(capability, long),
        "HcclCombinOpParam.capabilitySize": capability_size,
        "TransportDeviceNormalData.remoteInputMem": into,
        "TransportDeviceNormalData.localInputMem": local_in,
        "TransportDeviceNormalData.localOutputMem": local_out,
        "HcclAiRMAWQ": [
            *("number" if words[0] else 0, places[0], words[1], words[2], places[1]),
            *(places[2], words[3], places[3], words[4]),
        ],
        "HcclAiRMAMemInfo.memDetailPtr": "as in the table of ranks" if same else "other",
    }
    names = {"curRankId": 0, "rankNum": 4, "qpNum": 8, "sizeOfAiRMAWQ": 12, "sizeOfAiRMAMem": 20}
    found |= {f"HcclAiRMAInfo.{one}": read(info + offset, short) for one, offset in names.items()}
    for one, offset in (("sqPtr", 24), ("memPtr", 56)):
        found[f"HcclAiRMAInfo.{one}"] = memory(read(info + offset, long))
    for one, offset in (("memMaxNum", 0), ("sizeOfMemDetails", 4)):
        found[f"HcclAiRMAMemInfo.{one}"] = read(regions + offset, short)
    return found


def structures(
    comm: ctypes.c_void_p, name: bytes, stream: ctypes.c_void_p, rank: int, mesh: bool
) -> dict[str, Any]:
    function = "HcclAllocComResourceByTiling"
    task = HIERARCHY if SERVERS > 1 else ALL_TO_ALL
    context, made = ctypes.c_uint64(), tiling(name, task)
    out = ctypes.byref(context)
    statuses = {"no stream": call(function, comm, ctypes.c_void_p(), made, out)}
    ctypes.memset(ctypes.addressof(made) + 64 + 280, 1, 1)  # what lies behind a shorter structure
    statuses["short"] = call(function, comm, stream, made, out)
    statuses["ours"] = call(function, comm, stream, tiling(name, task), out)
    at, peer = context.value, 1 - rank
    short, long = ctypes.c_uint32, ctypes.c_uint64
    head = [read(at + 16, short), read(at + 20, short), read(at + 24, long)]
    found: dict[str, Any] = {function: statuses}
    if mesh:
        names = ("rankId", "rankNum", "winSize")
        found |= {f"HcclCombinOpParam.{one}": value for one, value in zip(names, head, strict=True)}
        bases = [read(at + 32 + 8 * other, long) for other in range(SIZE)]
        found["HcclCombinOpParam.multiServerFlag"] = read(at + 8872, ctypes.c_uint8)
        if SERVERS > 1:
            found |= between_servers(at, rank, peer)
        return found | {"HcclCombinOpParam.windowsIn[r]": bases}
    names = ("localUsrRankId", "rankSize", "winSize")
    found |= {f"HcclOpResParam.{one}": value for one, value in zip(names, head, strict=True)}
    found["HcclOpResParam.localWindowsIn"] = read(at + 32, long)
    found["HcclOpResParam.localWindowsOut"] = read(at + 40, long)
    found["HcclOpResParam.remoteResNum"] = read(at + 2980, short)
    relation = read(at + 2984 + 16 * peer + 8, long)
    found["HcclOpResParam.remoteRes[r].nextDevicePtr"] = {
        "own": read(at + 2984 + 16 * rank + 8, long),
        "peer": "device memory" if relation else 0,
    }
    found["HcclRankRelationResV2.remoteUsrRankId"] = read(relation, short)
    found["HcclRankRelationResV2.windowsIn"] = read(relation + 8, long)
    found["HcclRankRelationResV2.windowsOut"] = read(relation + 16, long)
    return found


def main() -> None:
    root = ctypes.create_string_buffer(4108)
    assert call("HcclGetRootInfo", root) == 0
    rank = 1 if os.fork() == 0 else 0
    comm, name = communicator(rank, root)
    stream = ctypes.c_void_p()
    assert call("aclrtCreateStream", ctypes.byref(stream)) == 0
    mesh = os.environ["ASCEND_MOE_PRODUCT"] == "A2"
    found = acl(rank) | tensors() | group(comm, name) | kfc(comm, rank)
    found |= structures(comm, name, stream, rank, mesh)
    # Of a rank in another server there is none.
    bases = windows(name, stream) if SERVERS == 1 else [own_buffer(comm), own_buffer(comm)]
    if rank == 0:
        os.wait()
        print(json.dumps({"windows": bases, "rows": found}), flush=True)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
