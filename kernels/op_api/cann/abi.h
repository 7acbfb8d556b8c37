// CANN's functions that this library uses and the acl headers do not declare, in our own words.
//
// acl/acl.h comes with the toolkit and with the torch_npu wheel. HCCL's newer headers come with
// neither 8.x nor the wheel, and the library is compiled once for several versions, so everything
// else is declared here. Nothing is linked: cann/symbols.h looks each function up. The source of a
// declaration stands above it as repository:path (tags that have it). hcomm is hicann/hcomm.
#pragma once

#include <cstddef>
#include <cstdint>

#include "acl/acl.h"

namespace ascend_moe::cann {

using HcclComm = void*;
using HcclResult = int32_t;

// hcomm:include/hccl/hccl_types.h; the last is what libhccl answers where libhcomm has no such
// function: hicann/hccl:src/common/hcomm_dlsym/hccl_res_dl.h (v9.0.0).
constexpr HcclResult kHcclSuccess = 0;
constexpr HcclResult kHcclNullPointer = 2;
constexpr HcclResult kHcclNotSupport = 5;
constexpr HcclResult kHcclNotThere = -2;

// CommEngine, hcomm:include/hcomm_res_defs.h. MC2 tiling counts otherwise: kTilingEngineAiv.
constexpr int32_t kEngineAiv = 4;

// HcclCMDType ALLTOALLV: mirror-cann/ops-transformer:torch_extension/cann_ops_transformer/ops/csrc/
// comm_context.cpp (HEAD 3a280bcc), which has the algorithm's name too.
constexpr uint8_t kOpAllToAllV = 8;
// HCCL_CMD_BATCH_WRITE and the algorithm of hierarchy on A2: mirror-cann/ops-transformer:mc2/
// moe_distribute_dispatch_v2/op_host/op_tiling/arch22/moe_distribute_dispatch_v2_tiling_arch22.cpp
// (HEAD 3a280bcc).
constexpr uint32_t kOpBatchWrite = 18;
constexpr char kHierarchy[] = "BatchWrite=level1:hierarchy";
// The same on A3: mc2/moe_distribute_dispatch_v2/op_host/op_tiling/
// moe_distribute_dispatch_v2_tiling.cpp.
constexpr char kHierarchyOnA3[] = "AlltoAll=level1:hierarchy";
constexpr char kAllToAllEverywhere[] = "AlltoAll=level0:fullmesh;level1:pairwise";

// ---- resources by tiling (CANN 8.x)

// Mc2InitTilingInner and Mc2CcTilingInner, mirror-cann/asc-devkit:include/adv_api/hccl/internal/
// hccl_tiling_msg.h (v8.5.0, v9.0.0, HEAD 82b89a15). HCCL reads up to `reduce`
// (hcomm:src/framework/op_base/src/op_base_mc2.cc); what follows must be there and zero.
struct TilingHead {
    uint32_t version, count, offset[8];
    uint8_t debug_mode, prepare_position;
    uint16_t queues, comm_blocks;
    uint8_t device_type;
    char reserved[17];
};
struct TilingTask {
    uint8_t skip_local_copy, skip_window_copy, step, version;
    char reserved[9];
    uint8_t engine, source_type, target_type;
    char group[128], algorithm[128];
    uint32_t op, reduce;
    char rest[232];
};
struct Tiling {
    TilingHead head;
    TilingTask task;
};
static_assert(sizeof(TilingHead) == 64 && sizeof(TilingTask) == 512);
static_assert(offsetof(TilingTask, op) == 272);
constexpr uint32_t kTilingVersion = 100;
constexpr uint8_t kTilingEngineAiv = 3;

// ---- profiling

// MsprofApi, the wheel's profiling/aprof_pub.h; 40 bytes.
struct ProfiledApi {
    uint16_t magic, level;
    uint32_t type, thread, reserved;
    uint64_t begin, end, item;
};
static_assert(sizeof(ProfiledApi) == 40);

extern "C" {

// hcomm:include/hccl/hccl_comm.h (from 9.0)
HcclResult HcclCommGetHandleWithName(const char* name, HcclComm* comm);
// the torch_npu wheel's hccl/hccl.h (all versions)
HcclResult HcclGetRankSize(HcclComm comm, uint32_t* ranks);
HcclResult HcclGetRankId(HcclComm comm, uint32_t* rank);
// hcomm:include/hccl/hccl_res.h (from 8.5): this rank's buffer. Never on 8.5, where it answers half
// of it and may allocate a second one: src/algorithm/impl/resource_manager/ccl_buffer_manager.cc.
HcclResult HcclGetHcclBuffer(HcclComm comm, void** address, uint64_t* bytes);

// hcomm:include/hccl/hccl_rank_graph.h (from 8.5). The lists are HCCL's own and may go with the
// next question.
HcclResult HcclRankGraphGetLayers(HcclComm comm, uint32_t** layers, uint32_t* count);
HcclResult HcclRankGraphGetRanksByLayer(HcclComm comm, uint32_t layer, uint32_t** ranks,
                                        uint32_t* count);
HcclResult HcclRankGraphGetInstSizeListByLayer(HcclComm comm, uint32_t layer, uint32_t** sizes,
                                               uint32_t* count);

// hicann/hccl:include/hccl_mc2.h (v9.0.0 .. v9.2.0-beta.1; not in v8.5.0)
HcclResult HcclKfcAllocOpArgs(void** arguments);
HcclResult HcclKfcFreeOpArgs(void* arguments);
HcclResult HcclKfcOpArgsSetAlgConfig(void* arguments, char* algorithm);
HcclResult HcclKfcOpArgsSetCommEngine(void* arguments, uint8_t engine);
HcclResult HcclCreateOpResCtx(HcclComm comm, uint8_t op, void* arguments, void** context);
// hcomm:pkg_inc/hccl/hccl_res_expt.h (from 9.0)
HcclResult HcclGetRemoteIpcHcclBuf(HcclComm comm, uint64_t rank, void** address, uint64_t* bytes);

// hcomm:pkg_inc/hccl/hcom.h, hccl_ex.h (HEAD: pkg_inc/legacy/hccl); used on 8.x by
// hw-native-sys/pto-isa:kernels/include/communication/host/detail/addressing.hpp (3186c38)
HcclResult HcomGetCommHandleByGroup(const char* group, HcclComm* comm);
HcclResult HcomGetL0TopoTypeEx(const char* group, uint32_t* topology, uint32_t flag);
HcclResult HcclAllocComResourceByTiling(HcclComm comm, void* stream, void* tiling, void** context);

// hicann/runtime:pkg_inc/profiling/aprof_pub.h; the wheel's has no MsprofRegTypeInfo
int32_t MsprofRegTypeInfo(uint16_t level, uint32_t type, const char* name);
int32_t MsprofReportApi(uint32_t aging, const ProfiledApi* api);
uint64_t MsprofSysCycleTime();

}  // extern "C"

// A C++ function, so it is found by its mangled name. Namespace error_message in CANN 8.5 and
// later, ge in 8.1: hicann/metadef:inc/external/base/err_msg.h. A text of 1024 bytes or more is
// dropped, and a code other than EU0000 .. EU9999 becomes EU0000 (error_manager.cc).
using ReportUserError = int32_t (*)(const char* code, const char* format, ...);
constexpr char kReportUserError[] = "_ZN13error_message23ReportUserDefinedErrMsgEPKcS1_z";
constexpr char kReportUserErrorOld[] = "_ZN2ge23ReportUserDefinedErrMsgEPKcS1_z";
constexpr size_t kUserErrorBytes = 1024;

}  // namespace ascend_moe::cann
