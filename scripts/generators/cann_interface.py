"""What the host library takes from CANN, and what the stand-in gives in its place: the table of docs/build-npu.md.

A row is a function that kernels/op_api calls or a field of a structure that it reads, with the line of CANN's public
source that decides what comes out. ``tests/vnpu/test_cann_interface.py`` walks the rows: nothing that is called is
missing, and what ``measured`` says is what the stand-in answers in each version of CANN that it plays.
"""

from __future__ import annotations

from typing import NamedTuple

LINKED, LOOKED_UP, FIELD = "linked", "looked up", "field"
BETWEEN = "A2, several servers"
HOST = "framework/communicator/impl/hccl_communicator_host.cc"
SHARED = "hcomm framework/communicator/impl/hccl_communicator.cc"
LAYOUT = "hcomm pub_inc/transport_pub.h"


class Row(NamedTuple):
    """A function or a field.

    ``measured`` is an expression over ``rank``, ``peer``, ``size`` (of the group), ``W`` (HCCL_BUFFSIZE in bytes),
    ``MB``, ``window(r)`` (where the window of a rank is mapped), ``servers`` (on which the two ranks stand), ``cann``
    and ``product``; by version of CANN where versions differ, empty where a value says nothing (memory, handles).
    Fields are at ``offset``, of ``product`` alone where only that product has the structure (``BETWEEN``: A2 between
    servers).
    """

    name: str
    how: str
    since: str
    gives: str
    source: str
    measured: str | dict[str, str] = ""
    offset: str = ""
    product: str = ""


def _linked(name: str, gives: str, source: str, measured: str = "") -> Row:
    return Row(name, LINKED, "all", gives, source, measured)


def _field(
    name: str, offset: str, gives: str, source: str, measured: str, product: str = "A3"
) -> Row:
    return Row(name, FIELD, "all", gives, source, measured, offset, product)


ACL = "runtime acl/aclrt_impl/"
NN = "opbase nnopbase/common/api/acl_op_api.cpp"
MC2 = "hcomm framework/op_base/src/op_base_mc2.cc"
KFC = "hccl common/hccl_mc2.cc"
GRAPH = "hcomm framework/communicator/impl/independent_op/rank_graph/rank_graph.cc"

ROWS = (
    # libascendcl, or libacl_rt
    _linked(
        "aclrtGetSocName",
        "`Ascend910_9392` (A3), `Ascend910B3` (A2)",
        f"{ACL}acl_rt_impl_base.cpp:193",
        "'Ascend910_9392' if product == 'A3' else 'Ascend910B3'",
    ),
    _linked(
        "aclrtGetDevice",
        "the thread's device; an error before one is set",
        f"{ACL}device.cpp:136",
        "rank",
    ),
    _linked(
        "aclGetDeviceCapability",
        "cores of the chip: 48 (A3), 40 (A2)",
        f"{ACL}acl.cpp:1276",
        "48 if product == 'A3' else 40",
    ),
    _linked("aclrtMalloc", "device memory, which the host cannot touch", f"{ACL}memory.cpp:253"),
    _linked("aclrtFree", "-", f"{ACL}memory.cpp:489"),
    _linked("aclrtMemcpy", "refused (107030) while a stream is captured", f"{ACL}memory.cpp:588"),
    _linked("aclrtCreateStream", "a thread that works off tasks", f"{ACL}stream.cpp:32"),
    _linked("aclrtDestroyStream", "-", f"{ACL}stream.cpp:97"),
    _linked(
        "aclrtSynchronizeStream",
        "waits; the error of the first task that failed",
        f"{ACL}stream.cpp:131",
    ),
    _linked(
        "aclrtSynchronizeStreamWithTimeout",
        "the same, for so many milliseconds at most",
        f"{ACL}stream.cpp:150",
    ),
    _linked(
        "aclrtSynchronizeDevice", "waits for all streams of the device", f"{ACL}device.cpp:168"
    ),
    _linked(
        "aclGetRecentErrMsg",
        "the text of this thread, once; null without one",
        f"{ACL}acl.cpp:1212, 1232",
        "None",
    ),
    _linked("aclAppLog", "stdout with `ASCEND_SLOG_PRINT_TO_STDOUT=1`", f"{ACL}log.cpp:16"),
    _linked(
        "aclDataTypeSize",
        "bytes of an element; 8 for a type it does not know",
        f"{ACL}data_buffer.cpp:18",
        "{'float': 4, 'bf16': 2, 'int8': 1, 'int4': 1, 'unknown': 8}",
    ),
    # libnnopbase
    _linked(
        "aclGetViewShape",
        "a copy of the view's sizes, the caller's to delete",
        f"{NN}:198",
        "[2, 3]",
    ),
    _linked("aclGetViewStrides", "a copy of the strides, in elements", f"{NN}:216", "[5, 1]"),
    _linked("aclGetViewOffset", "in elements, from the storage", f"{NN}:248", "7"),
    _linked("aclGetDataType", "-", f"{NN}:266", "27"),
    _linked(
        "aclGetRawTensorAddr", "where the storage begins, without the offset", f"{NN}:515", "0x5000"
    ),
    # looked up by name: libascendcl or libacl_rt, the error manager, the profiler
    Row(
        "aclmdlRICaptureThreadExchangeMode",
        LOOKED_UP,
        "8.2",
        "the old mode; relaxed lets this thread copy",
        f"{ACL}model_ri.cpp:149",
    ),
    Row(
        "aclrtGetResInCurrentThread",
        LOOKED_UP,
        "8.5",
        "cores granted to this thread",
        f"{ACL}device.cpp:522",
        "48 if product == 'A3' else 40",
    ),
    Row(
        "aclrtGetOpExecuteTimeout",
        LOOKED_UP,
        "8.5",
        "milliseconds until the device ends a kernel, as torch_npu has asked for",
        f"{ACL}device.cpp:613",
    ),
    Row(
        "aclrtGetLastError",
        LOOKED_UP,
        "8.5",
        "the last error of this thread, once",
        f"{ACL}context.cpp:200",
    ),
    Row(
        "aclsysGetVersionStr",
        LOOKED_UP,
        "8.5",
        "the version of a package (`hcomm`, `runtime`, ..); 100003 for `CANN`, which is none",
        f"{ACL}acl.cpp:876 (v8.5.0), 962, 973 (v9.1.0)",
        "{'hcomm': cann, 'runtime': cann, 'CANN': 100003}",
    ),
    Row(
        "aclsysGetCANNVersion",
        LOOKED_UP,
        "8.1",
        "the version of `runtime`; asked only without the one above",
        f"{ACL}acl.cpp:66, 788",
        "cann",
    ),
    Row(
        "error_message::ReportUserDefinedErrMsg",
        LOOKED_UP,
        "8.1 (in `ge`)",
        "0; -1 for a text of 1024 bytes, which is dropped",
        "runtime dfx/error_manager/error_manager.cc:1061",
        "{'short': 0, 'long': -1}",
    ),
    Row(
        "MsprofRegTypeInfo",
        LOOKED_UP,
        "8.5",
        "0, nothing kept",
        "runtime dfx/msprof/collector/dvvp/profapi/src/prof_impl_inner_api.cpp:67",
        "0",
    ),
    Row("MsprofReportApi", LOOKED_UP, "8.1", "0, dropped: nobody profiles", "the same, :39", "0"),
    Row("MsprofSysCycleTime", LOOKED_UP, "8.1", "nanoseconds", "the same, :165"),
    # HCCL
    Row(
        "HcclAllGather",
        LOOKED_UP,
        "all",
        "every rank's bytes at every rank, in the order of ranks",
        "hccl ops/all_gather/all_gather_op.cc:22",
    ),
    Row(
        "HcclGetRankSize",
        LOOKED_UP,
        "all",
        "ranks of the group",
        "hcomm framework/communicator/impl/independent_op/hccl_independent_rank_graph.cc:396",
        "size",
    ),
    Row("HcclGetRankId", LOOKED_UP, "all", "own rank", "the same, :424", "rank"),
    Row(
        "HcclGetHcclBuffer",
        LOOKED_UP,
        "8.5",
        'own buffer: "in" alone in 8.5, "in" and "out" from 9.0',
        "hcomm algorithm/impl/resource_manager/ccl_buffer_manager.cc:385 (v8.5.0 and v9.0.0, which differ)",
        {"8.5.0": "W", "9.0.0": "2 * W", "9.1.0": "2 * W"},
    ),
    Row(
        "HcclCommGetHandleWithName",
        LOOKED_UP,
        "9.0",
        "the communicator",
        "hcomm framework/op_base/src/op_base.cc:1269",
        "'comm'",
    ),
    Row("HcclKfcAllocOpArgs", LOOKED_UP, "9.0", "memory for the arguments", f"{KFC}:38", "0"),
    Row("HcclKfcFreeOpArgs", LOOKED_UP, "9.0", "-", f"{KFC}:54", "0"),
    Row(
        "HcclKfcOpArgsSetAlgConfig",
        LOOKED_UP,
        "9.0",
        "1 (HCCL_E_PARA) for 128 characters",
        f"{KFC}:111",
        "{'ours': 0, 'long': 1}",
    ),
    Row(
        "HcclKfcOpArgsSetCommEngine",
        LOOKED_UP,
        "9.0",
        "5 (not supported) for all but AICPU and AIV",
        f"{KFC}:126",
        "{'AIV': 0, 'CPU': 5}",
    ),
    Row(
        "HcclCreateOpResCtx",
        LOOKED_UP,
        "9.0",
        "links to all ranks; 5 (not supported) on A2",
        f"{KFC}:141; {MC2}:134",
        "0 if product == 'A3' else 5",
    ),
    Row(
        "HcclGetRemoteIpcHcclBuf",
        LOOKED_UP,
        "9.0",
        '"in", "out" and 1 MB of a rank; 2 (HCCL_E_PTR) and no address for the own rank and one behind RDMA; '
        "1 before there are links",
        f"{MC2}:358; {HOST}:5762, 8686",
        "{'early': 1, 'own': [2, 0, 0], 'peer': [0, window(peer), 2 * W + MB]}"
        " if product == 'A3' else {'early': 1}",
    ),
    Row(
        "HcclRankGraphGetLayers",
        LOOKED_UP,
        "8.5",
        "0, the server; 1 if there are several: all ranks (A2), the super-pod (A3); 2 if there are several of these",
        f"{GRAPH}:609",
        "[0] if servers == 1 else [0, 1]",
    ),
    Row(
        "HcclRankGraphGetRanksByLayer",
        LOOKED_UP,
        "8.5",
        "the ranks that stand in the same one, by server, then by rank; 1 (HCCL_E_PARA) for a layer that is not there",
        f"{GRAPH}:465, 609",
        "{'0': [0, 1], '1': 1} if servers == 1 else {'0': [0], '1': [0, 1]}",
    ),
    Row(
        "HcclRankGraphGetInstSizeListByLayer",
        LOOKED_UP,
        "8.5",
        "how many ranks stand in each",
        f"{GRAPH}:482, 609",
        "[2] if servers == 1 else [1, 1]",
    ),
    Row(
        "HcomGetCommHandleByGroup",
        LOOKED_UP,
        "8.1",
        "the communicator",
        "hcomm framework/hcom/hcom_common.cc:206",
        "'comm'",
    ),
    Row(
        "HcomGetL0TopoTypeEx",
        LOOKED_UP,
        "8.1",
        "2 (A3), 1 (A2, a mesh)",
        "hcomm framework/hcom/hcom.cc:2725; framework/communicator/impl/independent_op/rank_graph/rank_graph.cc:430, "
        "437; include/hccl/hccl_rank_graph.h:42",
        "2 if product == 'A3' else 1",
    ),
    Row(
        "HcclAllocComResourceByTiling",
        LOOKED_UP,
        "8.1",
        "links to all ranks, and one of the structures below; 2 without a stream. HCCL reads `Mc2CcTilingInner` up to "
        "`reduceType`; the stand-in wants all its 512 bytes, the last 232 of them zero (1 otherwise)",
        f"{MC2}:192, 64; asc-devkit include/adv_api/hccl/internal/hccl_tiling_msg.h:37",
        "{'no stream': 2, 'short': 1, 'ours': 0}",
    ),
    # structures
    _field("HcclOpResParam.localUsrRankId", "16", "own rank", f"hcomm {HOST}:5967", "rank"),
    _field("HcclOpResParam.rankSize", "20", "ranks of the group", f"hcomm {HOST}:5968", "size"),
    _field("HcclOpResParam.winSize", "24", '"in" alone', f"hcomm {HOST}:5972", "W"),
    _field(
        "HcclOpResParam.localWindowsIn", "32", "own window", f"hcomm {HOST}:5973", "window(rank)"
    ),
    _field(
        "HcclOpResParam.localWindowsOut",
        "40",
        "own out buffer",
        f"hcomm {HOST}:5974",
        "window(rank) + W",
    ),
    _field(
        "HcclOpResParam.remoteResNum",
        "2980",
        "0, always: nobody counts",
        "hcomm framework/communicator/impl/hccl_communicator.cc:128 (v8.5.0), 115 (v9.0.0, v9.1.0-beta.1)",
        "0",
    ),
    _field(
        "HcclOpResParam.remoteRes[r].nextDevicePtr",
        "2984 + 16 r + 8",
        "the next structure, in device memory; 0 for the own rank",
        f"hcomm {HOST}:5739",
        "{'own': 0, 'peer': 'device memory'}",
    ),
    _field("HcclRankRelationResV2.remoteUsrRankId", "0", "that rank", f"hcomm {HOST}:5740", "peer"),
    _field(
        "HcclRankRelationResV2.windowsIn",
        "8",
        "its window as mapped here (behind RDMA: its own address)",
        f"hcomm {HOST}:5751",
        "window(peer)",
    ),
    _field(
        "HcclRankRelationResV2.windowsOut",
        "16",
        "its out buffer, alike",
        f"hcomm {HOST}:5756",
        "window(peer) + W",
    ),
    _field("HcclCombinOpParam.rankId", "16", "own rank", f"hcomm {HOST}:7859", "rank", "A2"),
    _field(
        "HcclCombinOpParam.rankNum", "20", "ranks of the group", f"hcomm {HOST}:7861", "size", "A2"
    ),
    _field("HcclCombinOpParam.winSize", "24", '"in" alone', f"hcomm {HOST}:7862", "W", "A2"),
    _field(
        "HcclCombinOpParam.windowsIn[r]",
        "32 + 8 r",
        "the window of each rank, the own one too; 0 when the group spans servers",
        f"hcomm {HOST}:7929, 7955",
        "[window(0), window(1)] if servers == 1 else [0, 0]",
        "A2",
    ),
    _field(
        "HcclCombinOpParam.multiServerFlag",
        "8872",
        "1 when the group spans servers, else 0",
        f"hcomm {HOST}:6915",
        "servers - 1",
        "A2",
    ),
    _field(
        "HcclCombinOpParam.ibverbsData",
        "8880",
        "the table of ranks",
        f"hcomm {HOST}:6913",
        "'device memory'",
        BETWEEN,
    ),
    _field(
        "HcclCombinOpParam.ibverbsDataSize",
        "8888",
        "120 for each rank",
        f"hcomm {HOST}:6914",
        "120 * size",
        BETWEEN,
    ),
    _field(
        "HcclCombinOpParam.sizeOfAiRMAInfo",
        "8896",
        "with hierarchy 64, else 0",
        f"{SHARED}:2859; {HOST}:6933",
        "64",
        BETWEEN,
    ),
    _field(
        "HcclCombinOpParam.aiRMAInfo",
        "8904",
        "with hierarchy the root of the queues, else 0",
        f"{SHARED}:2861",
        "'device memory'",
        BETWEEN,
    ),
    _field(
        "HcclCombinOpParam.capabilityPtr",
        "8912",
        "a word in device memory: bits 0 and 1, with hierarchy and a driver that can also bit 2",
        f"hcomm {HOST}:6927, 7904",
        "7",
        BETWEEN,
    ),
    _field("HcclCombinOpParam.capabilitySize", "8920", "8", f"hcomm {HOST}:6928", "8", BETWEEN),
    _field(
        "TransportDeviceNormalData.remoteInputMem",
        "120 r + 0",
        "bytes, address and key of the in buffer of a rank; without a key in the own server, empty for the own rank",
        f"{SHARED}:2584; {LAYOUT}:113, 355",
        "[W, 'out of reach', 'key']",
        BETWEEN,
    ),
    _field(
        "TransportDeviceNormalData.localInputMem",
        "120 r + 48",
        "the own in buffer; its key differs from rank to rank",
        f"{SHARED}:2605; {LAYOUT}:355",
        "[W, window(rank), 'key']",
        BETWEEN,
    ),
    _field(
        "TransportDeviceNormalData.localOutputMem",
        "120 r + 72",
        "the own out buffer",
        f"{SHARED}:2605; {LAYOUT}:355",
        "[W, window(rank) + W, 'key']",
        BETWEEN,
    ),
    _field("HcclAiRMAInfo.curRankId", "0", "own rank", f"{SHARED}:2655", "rank", BETWEEN),
    _field("HcclAiRMAInfo.rankNum", "4", "ranks of the group", f"{SHARED}:2656", "size", BETWEEN),
    _field(
        "HcclAiRMAInfo.qpNum",
        "8",
        "queues to a rank, 1 unless HCCL_RDMA_QPS_PER_CONNECTION says otherwise",
        f"{SHARED}:2946, 2958",
        "1",
        BETWEEN,
    ),
    _field("HcclAiRMAInfo.sizeOfAiRMAWQ", "12", "64", f"{SHARED}:2827", "64", BETWEEN),
    _field("HcclAiRMAInfo.sizeOfAiRMAMem", "20", "16", f"{SHARED}:2829", "16", BETWEEN),
    _field(
        "HcclAiRMAInfo.sqPtr", "24", "send queues", f"{SHARED}:2832", "'device memory'", BETWEEN
    ),
    _field(
        "HcclAiRMAInfo.memPtr",
        "56",
        "regions of each rank",
        f"{SHARED}:2855",
        "'device memory'",
        BETWEEN,
    ),
    _field(
        "HcclAiRMAWQ",
        "64 r",
        "number, elements, bytes of one, how many, head, tail, doorbell mode, doorbell, service level; zeros in the "
        "own server",
        f"{LAYOUT}:33; {SHARED}:3021; hcomm platform/resource/transport/host/transport_ibverbs.cc:2474; "
        "platform/inc/adapter/adapter_hccp.h:40",
        "['number', 'device memory', 64, 32768, 'device memory', 'device memory', 0, 'device memory', 4]",
        BETWEEN,
    ),
    _field("HcclAiRMAMemInfo.memMaxNum", "16 r + 0", "4", f"{SHARED}:2715", "4", BETWEEN),
    _field("HcclAiRMAMemInfo.sizeOfMemDetails", "16 r + 4", "24", f"{SHARED}:2716", "24", BETWEEN),
    _field(
        "HcclAiRMAMemInfo.memDetailPtr",
        "16 r + 8",
        "own in, its in, own out, its out, as in the table of ranks",
        f"{SHARED}:2717; hcomm algorithm/pub_inc/hccl_aiv.h:108",
        "'as in the table of ranks'",
        BETWEEN,
    ),
)
