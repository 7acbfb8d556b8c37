// Windows by HCCL's Kfc interface, CANN 9.
//
//   1. op arguments: engine AIV (our kernels copy, no AICPU server), the all-to-all algorithm,
//   which
//      is the one that builds a link to every rank
//   2. HcclCreateOpResCtx: builds the links; collective
//   3. HcclGetRemoteIpcHcclBuf: where the buffer of each other rank is mapped
//
// The context of step 2 belongs to the communicator and goes with it; we need only that it exists.
// On A2, where 9.0 and 9.1 do not offer step 2 yet, this covers one server: beyond that HCCL maps
// no remote buffer (servers.h).
//
// The own buffer (Open) is asked for before step 2, other than CANN's operators do, and that is
// meant: what is asked first makes the buffer, and HcclGetHcclBuffer makes one of this
// communicator's own even if it was configured to share one by name
// (hcomm:src/algorithm/impl/resource_manager/ccl_buffer_manager.cc:383 against :58, v9.0.0). A
// buffer that another group writes to is of no use.
//
// All of this is CANN 9: 8.5 has HcclGetHcclBuffer too, which must not be called there
// (cann/abi.h), and is not, since it has none of the others.
#include <memory>

#include "windows/provider.h"

namespace ascend_moe {
namespace {

using cann::Cann;
using cann::kHcclSuccess;

// The communicator behind the name, own rank and number of ranks, own buffer at base[rank], and
// room for the others.
Attempt Open(const std::string& group, cann::HcclComm* comm, Windows* found) {
    const cann::Symbols& c = Cann();
    cann::HcclResult result = c.HcclCommGetHandleWithName(group.c_str(), comm);
    if (result != kHcclSuccess) return Attempt::Of("HcclCommGetHandleWithName", result);
    result = c.HcclGetRankSize(*comm, &found->ranks);
    if (result != kHcclSuccess) return Attempt::Of("HcclGetRankSize", result);
    result = c.HcclGetRankId(*comm, &found->rank);
    if (result != kHcclSuccess) return Attempt::Of("HcclGetRankId", result);
    if (found->rank >= found->ranks) return Attempt::Failed("HcclGetRankId is outside the group");
    found->base.assign(found->ranks, 0);
    void* address = nullptr;
    uint64_t bytes = 0;
    result = c.HcclGetHcclBuffer(*comm, &address, &bytes);
    if (result != kHcclSuccess) return Attempt::Of("HcclGetHcclBuffer", result);
    SetWindow(found, found->rank, address, bytes);
    return Attempt::Found();
}

Attempt BuildLinks(cann::HcclComm comm) {
    void* raw = nullptr;
    cann::HcclResult result = Cann().HcclKfcAllocOpArgs(&raw);
    if (result != kHcclSuccess) return Attempt::Of("HcclKfcAllocOpArgs", result);
    const auto free = [](void* arguments) { Cann().HcclKfcFreeOpArgs(arguments); };
    const std::unique_ptr<void, decltype(free)> arguments(raw, free);
    result = Cann().HcclKfcOpArgsSetCommEngine(raw, uint8_t{cann::kEngineAiv});
    if (result != kHcclSuccess) return Attempt::Of("HcclKfcOpArgsSetCommEngine", result);
    std::string algorithm = cann::kAllToAllEverywhere;
    result = Cann().HcclKfcOpArgsSetAlgConfig(raw, algorithm.data());
    if (result != kHcclSuccess) return Attempt::Of("HcclKfcOpArgsSetAlgConfig", result);
    void* context = nullptr;
    result = Cann().HcclCreateOpResCtx(comm, cann::kOpAllToAllV, raw, &context);
    return result == kHcclSuccess ? Attempt::Found() : Attempt::Of("HcclCreateOpResCtx", result);
}

}  // namespace

Attempt FromKfc(const std::string& group, aclrtStream, Windows* found) {
    const cann::Symbols& c = Cann();
    const std::string missing = cann::Missing(
        c.HcclCommGetHandleWithName, c.HcclGetRankSize, c.HcclGetRankId, c.HcclGetHcclBuffer,
        c.HcclKfcAllocOpArgs, c.HcclKfcFreeOpArgs, c.HcclKfcOpArgsSetCommEngine,
        c.HcclKfcOpArgsSetAlgConfig, c.HcclCreateOpResCtx, c.HcclGetRemoteIpcHcclBuf);
    if (!missing.empty()) return Attempt::Absent("CANN has no " + missing);
    cann::HcclComm comm = nullptr;
    Attempt step = Open(group, &comm, found);
    if (step.outcome != Attempt::kFound) return step;
    step = BuildLinks(comm);
    if (step.outcome != Attempt::kFound) return step;
    for (uint32_t rank = 0; rank < found->ranks; ++rank) {
        if (rank == found->rank) continue;
        void* address = nullptr;
        uint64_t bytes = 0;
        const auto result = c.HcclGetRemoteIpcHcclBuf(comm, rank, &address, &bytes);
        // So of a rank that is joined by RDMA: it knows the buffers behind links within reach of a
        // core only (hcomm:src/framework/op_base/src/op_base_mc2.cc:373,
        // src/framework/communicator/impl/hccl_communicator_host.cc:5762, v9.0.0).
        if (result == cann::kHcclNullPointer && address == nullptr)
            return Attempt::Unreachable("there is no HCCS link to rank " + std::to_string(rank) +
                                        " (HcclGetRemoteIpcHcclBuf has no address of it)");
        if (result != kHcclSuccess) return Attempt::Of("HcclGetRemoteIpcHcclBuf", result);
        SetWindow(found, rank, address, bytes);
    }
    return Attempt::Found();
}

}  // namespace ascend_moe
