// See windows.h. The order of the providers, and what is said when none has the windows.
//
//   kfc          CANN 9. What CANN's own operators with a context tensor use on A2 and A3
//                (cann_ops_transformer, comm_context.cpp), so the best proven one.
//   tiling       CANN 8.x, private structures; also in 9.x.
//   virtual-npu  the stand-in's own interface; in the host build only. Last, so that tests run the
//                code above.
//
// Beside them, for groups on several servers alone: rdma, which has queues too.
//
// None is asked when HCCL says that some rank is out of a core's reach (servers.h): they would
// build links of a kind that CANN's own kernels may not want, and could be given addresses that
// only a network card can use.
//
// HCCL's channels (HcclChannelAcquire), its documented interface, are no way on A2 and A3: engine
// AIV is refused there up to 9.1 (hcomm:src/framework/communicator/impl/independent_op/channel/
// channel_manager.cc:71, v9.0.0) and not among those that the page of HcclChannelAcquire lists
// (HEAD).
//
// The order must be the same on all ranks, since each provider meets the other ranks. It depends on
// the installed CANN and the chip alone, and only their absence leads to the next one.
// ASCEND_MOE_WINDOWS=<name> asks one of them and no other.
#include "windows.h"

#include <cstdlib>

#include "report.h"
#include "servers.h"
#include "windows/provider.h"

namespace ascend_moe {
namespace {

struct Row {
    const char* name;
    Provider provider;
    uint32_t per_buffsize;  // CANN 9 shows the "in" and the "out" buffer as one, 8.x the first
};

constexpr Row kProviders[] = {
    {"kfc", FromKfc, 2},
    {"tiling", FromTiling, 1},
#ifdef ASCEND_MOE_VIRTUAL_NPU
    {"virtual-npu", FromVirtualNpu, 2},
#endif
};

std::string Chosen() {
    const char* name = getenv("ASCEND_MOE_WINDOWS");
    return name == nullptr ? "" : name;
}

// Empty when the windows are fit for use.
std::string Defect(const Windows& windows) {
    if (windows.rank >= windows.ranks || windows.base.size() != windows.ranks)
        return "rank " + std::to_string(windows.rank) + " of " + std::to_string(windows.ranks) +
               " with " + std::to_string(windows.base.size()) + " windows";
    if (windows.bytes == 0) return "a window of 0 bytes";
    for (uint32_t rank = 0; rank < windows.ranks; ++rank) {
        if (windows.base[rank] == 0) return "no window of rank " + std::to_string(rank);
        if (windows.base[rank] % 512 != 0)
            return "the window of rank " + std::to_string(rank) + " is not aligned to 512 bytes";
    }
    return "";
}

int NoWindows(int status, const std::string& group, const std::string& tried) {
    return Fail(status,
                "group_ep %s: no way to its HCCL windows. %s. Needed is CANN 8.1 to 9.2 with the "
                "HCCL that belongs to it; ASCEND_MOE_KERNELS=off runs CANN's own kernels",
                group.c_str(), tried.c_str());
}

}  // namespace

const void* CommunicatorOf(const std::string& group) {
    const cann::Symbols& cann = cann::Cann();
    cann::HcclComm comm = nullptr;
    if (cann.HcclCommGetHandleWithName.call != nullptr) {
        cann.HcclCommGetHandleWithName(group.c_str(), &comm);
    } else if (cann.HcomGetCommHandleByGroup.call != nullptr) {
        cann.HcomGetCommHandleByGroup(group.c_str(), &comm);
    }
    return comm;
}

Attempt Attempt::Of(const char* call, cann::HcclResult result) {
    const std::string why = std::string(call) + " returned " + std::to_string(result);
    const bool absent = result == cann::kHcclNotSupport || result == cann::kHcclNotThere;
    return absent ? Absent(why + " (not supported)") : Failed(why);
}

void SetWindow(Windows* windows, uint32_t rank, const void* address, uint64_t bytes) {
    windows->base[rank] = reinterpret_cast<uint64_t>(address);
    if (windows->bytes == 0 || bytes < windows->bytes) windows->bytes = bytes;
}

int FindWindows(const std::string& group, aclrtStream stream, Windows* found) {
    if (group.empty() || group.size() >= 128)
        return Fail(kBadParameter, "group_ep has %zu characters, must have 1 to 127", group.size());
    Servers servers;
    const int status = FindServers(group, &servers);
    if (status != ACL_SUCCESS) return status;
    if (servers.apart())
        return Fail(
            kNoWindows,
            "group_ep %s: it stands on %s, and a core writes into windows over HCCS alone: "
            "within a server on A2, within a super-pod on A3. Needed is a group within one; "
            "ASCEND_MOE_KERNELS=off runs CANN's own kernels",
            group.c_str(), servers.Text().c_str());
    const std::string chosen = Chosen();
    std::string tried;
    for (const Row& row : kProviders) {
        if (!chosen.empty() && chosen != row.name) continue;
        *found = {};
        Attempt attempt = row.provider(group, stream, found);
        found->provider = row.name;
        found->per_buffsize = row.per_buffsize;
        found->communicator = CommunicatorOf(group);
        if (attempt.outcome == Attempt::kFound) {
            const std::string defect = Defect(*found);
            if (defect.empty()) return ACL_SUCCESS;
            attempt = Attempt::Failed("it gave " + defect);
        }
        tried += (tried.empty() ? "" : "; ") + std::string(row.name) + ": " + attempt.why;
        if (attempt.outcome == Attempt::kFailed) return NoWindows(kInnerError, group, tried);
        if (attempt.outcome == Attempt::kUnreachable) break;
    }
    if (tried.empty())
        return Fail(kBadParameter, "ASCEND_MOE_WINDOWS=%s is none of kfc, tiling", chosen.c_str());
    return NoWindows(kNoWindows, group, tried);
}

int FindWindowsAndQueues(const std::string& group, aclrtStream stream, Windows* found) {
    *found = {};
    const Attempt attempt = FromRdma(group, stream, found);
    found->provider = "rdma";
    found->per_buffsize = 1;
    found->communicator = CommunicatorOf(group);
    if (attempt.outcome == Attempt::kFound) return ACL_SUCCESS;
    return Fail(
        attempt.outcome == Attempt::kFailed ? kInnerError : kNoWindows,
        "group_ep %s: no way to its queues between servers. rdma: %s. Needed is CANN 8.5 to "
        "9.2 with the HCCL that belongs to it; ASCEND_MOE_KERNELS=off runs CANN's own kernels",
        group.c_str(), attempt.why.c_str());
}

}  // namespace ascend_moe
