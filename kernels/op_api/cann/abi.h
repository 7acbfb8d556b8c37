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
using Channel = uint64_t;

// hcomm:include/hccl/hccl_types.h; the second is what libhccl answers where libhcomm has no such
// function: hicann/hccl:src/common/hcomm_dlsym/hccl_res_dl.h (v9.0.0).
constexpr HcclResult kHcclSuccess = 0;
constexpr HcclResult kHcclNotSupport = 5;
constexpr HcclResult kHcclNotThere = -2;

// CommEngine, hcomm:include/hcomm_res_defs.h. MC2 tiling counts otherwise: kTilingEngineAiv.
constexpr int32_t kEngineAiv = 4;

// HcclCMDType ALLTOALLV: mirror-cann/ops-transformer:torch_extension/cann_ops_transformer/ops/csrc/
// comm_context.cpp (HEAD 3a280bcc), which has the algorithm's name too.
constexpr uint8_t kOpAllToAllV = 8;
constexpr char kAllToAllEverywhere[] = "AlltoAll=level0:fullmesh;level1:pairwise";

// ---- channels. hcomm:include/hcomm_res_defs.h, include/hccl/hccl_channel.h (before 9.2:
// hccl_res.h), include/hccl/hccl_rank_graph.h. Every union may grow to its full size, so it is
// bytes here.

enum Protocol : int32_t { kProtocolReserved = -1, kProtocolHccs = 0, kProtocolSio = 3 };

struct AbiHeader {
    uint32_t version, magic, size, reserved;
};

struct Endpoint {
    int32_t protocol;
    int32_t address_type;
    uint8_t address[36];
    int32_t location_type;
    uint8_t location[60];
    uint8_t rest[52];
};

struct Link {
    AbiHeader header;
    Endpoint source, target;
    int32_t protocol;
    uint8_t attributes[124];
};

struct ChannelDescription {
    AbiHeader header;
    uint32_t remote_rank;
    int32_t protocol;
    Endpoint local, remote;
    uint32_t notifies;
    void** memory_handles;
    uint32_t memory_handle_count;
    uint8_t attributes[128];
};
constexpr uint32_t kChannelMagic = 0x0f0f0f0f;
constexpr uint32_t kChannelVersion = 1;

static_assert(sizeof(Endpoint) == 160 && sizeof(Link) == 464);
static_assert(offsetof(ChannelDescription, memory_handles) == 352);
static_assert(offsetof(ChannelDescription, attributes) == 364);
static_assert(sizeof(ChannelDescription) == 496);

// ---- resources by tiling (CANN 8.x)

// hw-native-sys/pto-isa:kernels/include/communication/host/detail/hccl_tiling.hpp (3186c38).
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
};
struct Tiling {
    TilingHead head;
    TilingTask task;
};
static_assert(sizeof(TilingHead) == 64 && sizeof(TilingTask) == 280);
constexpr uint32_t kTilingVersion = 100;
constexpr uint8_t kTilingEngineAiv = 3;

// ---- profiling

// mirror-cann/asc-devkit:tools/build/asc_rt/ascendc_runtime.cpp (v8.5.0, v9.0.0) and the wheel's
// profiling/aprof_pub.h; 40 bytes.
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
// hcomm:include/hccl/hccl_res.h (from 9.0): this rank's buffer
HcclResult HcclGetHcclBuffer(HcclComm comm, void** address, uint64_t* bytes);

// hicann/hccl:include/hccl_mc2.h (v9.0.0 .. v9.2.0-beta.1; not in v8.5.0)
HcclResult HcclKfcAllocOpArgs(void** arguments);
HcclResult HcclKfcFreeOpArgs(void* arguments);
HcclResult HcclKfcOpArgsSetAlgConfig(void* arguments, char* algorithm);
HcclResult HcclKfcOpArgsSetCommEngine(void* arguments, uint8_t engine);
HcclResult HcclCreateOpResCtx(HcclComm comm, uint8_t op, void* arguments, void** context);
// hcomm:pkg_inc/hccl/hccl_res_expt.h (from 9.0; in hccl_res.h until 9.1)
HcclResult HcclGetRemoteIpcHcclBuf(HcclComm comm, uint64_t rank, void** address, uint64_t* bytes);

// hcomm:include/hccl/hccl_rank_graph.h (from 9.0)
HcclResult HcclRankGraphGetLayers(HcclComm comm, uint32_t** layers, uint32_t* count);
HcclResult HcclRankGraphGetLinks(HcclComm comm, uint32_t layer, uint32_t source, uint32_t target,
                                 Link** links, uint32_t* count);
// hcomm:include/hccl/hccl_channel.h (from 9.0)
HcclResult HcclChannelAcquire(HcclComm comm, int32_t engine, const ChannelDescription* described,
                              uint32_t count, Channel* channels);
HcclResult HcclChannelGetHcclBuffer(HcclComm comm, Channel channel, void** address,
                                    uint64_t* bytes);

// hcomm:pkg_inc/legacy/hccl/hcom.h, hccl_ex.h; used on 8.x by pto-isa, as above
HcclResult HcomGetCommHandleByGroup(const char* group, HcclComm* comm);
HcclResult HcomGetL0TopoTypeEx(const char* group, uint32_t* topology, uint32_t flag);
HcclResult HcclAllocComResourceByTiling(HcclComm comm, void* stream, void* tiling, void** context);

// the torch_npu wheel's profiling/aprof_pub.h
int32_t MsprofReportApi(uint32_t aging, const ProfiledApi* api);
uint64_t MsprofGetHashId(const char* text, size_t length);
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
