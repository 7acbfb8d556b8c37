// Windows by HCCL's Kfc interface, CANN 9.
//
//   1. op arguments: engine AIV (our kernels copy, no AICPU server), the all-to-all algorithm,
//   which
//      is the one that builds a link to every rank
//   2. HcclCreateOpResCtx: builds the links; collective
//   3. HcclGetRemoteIpcHcclBuf: where the buffer of each other rank is mapped
//
// The context of step 2 belongs to the communicator and goes with it; we need only that it exists.
// On A2 this covers one server: beyond that HCCL maps no remote buffer.
#include <memory>

#include "windows/provider.h"

namespace ascend_moe {
namespace {

using cann::Cann;
using cann::kHcclSuccess;

constexpr uint32_t kA2Server = 8;

bool IsA2() {
    const char* soc = aclrtGetSocName();
    return soc != nullptr && std::string(soc).find("Ascend910B") == 0;
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
    Attempt step = OpenGroup(group, &comm, found);
    if (step.outcome != Attempt::kFound) return step;
    if (IsA2() && found->ranks > kA2Server)
        return Attempt::Absent("A2 has windows inside a server of 8 only, the group has " +
                               std::to_string(found->ranks) + " ranks");
    step = BuildLinks(comm);
    if (step.outcome != Attempt::kFound) return step;
    for (uint32_t rank = 0; rank < found->ranks; ++rank) {
        if (rank == found->rank) continue;
        void* address = nullptr;
        uint64_t bytes = 0;
        const auto result = c.HcclGetRemoteIpcHcclBuf(comm, rank, &address, &bytes);
        if (result != kHcclSuccess) return Attempt::Of("HcclGetRemoteIpcHcclBuf", result);
        SetWindow(found, rank, address, bytes);
    }
    return Attempt::Found();
}

}  // namespace ascend_moe
