// The Kfc interface of HCCL 9 (hccl_mc2.h, hccl_res_expt.h): links built by a description of the
// operator that will use them. Remote buffers can be asked for when they have been built.
#include <mutex>
#include <set>

#include "offer.h"

namespace {

constexpr uint8_t kAiv = 4;
constexpr uint8_t kAllToAllV = 8;
constexpr char kAlgorithm[] = "AlltoAll=level0:fullmesh;level1:pairwise";

struct OpArguments {
    uint8_t engine = 0;
    std::string algorithm;
};

struct Linked {
    std::mutex mutex;
    std::set<std::string> groups;
};

Linked& LinkedGroups() {
    static Linked* linked = new Linked();
    return *linked;
}

bool Reached(const standin::Communicator& communicator, uint32_t rank) {
    return rank < communicator.size() && rank != communicator.rank() && communicator.Reaches(rank);
}

}  // namespace

extern "C" {

HcclResult HcclCommGetHandleWithName(const char* name, HcclComm* comm) {
    const auto communicator = standin::Named(name);
    if (communicator == nullptr)
        return standin::Wrong("HcclCommGetHandleWithName", "no communicator of that name");
    *comm = communicator.get();
    return HCCL_SUCCESS;
}

HcclResult HcclKfcAllocOpArgs(void** arguments) {
    *arguments = new OpArguments();
    return HCCL_SUCCESS;
}

HcclResult HcclKfcFreeOpArgs(void* arguments) {
    delete static_cast<OpArguments*>(arguments);
    return HCCL_SUCCESS;
}

HcclResult HcclKfcOpArgsSetAlgConfig(void* arguments, char* algorithm) {
    if (strlen(algorithm) >= 128) return standin::Wrong(__func__, "algConfig has 128 bytes");
    static_cast<OpArguments*>(arguments)->algorithm = algorithm;
    return HCCL_SUCCESS;
}

HcclResult HcclKfcOpArgsSetCommEngine(void* arguments, uint8_t engine) {
    if (engine != 2 && engine != kAiv) return HCCL_E_NOT_SUPPORT;
    static_cast<OpArguments*>(arguments)->engine = engine;
    return HCCL_SUCCESS;
}

HcclResult HcclCreateOpResCtx(HcclComm comm, uint8_t op, void* arguments, void** context) {
    const auto communicator = standin::OfHandle(comm);
    if (communicator == nullptr) return standin::Wrong(__func__, "no communicator");
    // 9.0 and 9.1 (hcomm:src/framework/op_base/src/op_base_mc2.cc:134, v9.0.0).
    if (standin::A2()) return HCCL_E_NOT_SUPPORT;
    const auto& described = *static_cast<OpArguments*>(arguments);
    if (op != kAllToAllV || described.engine != kAiv || described.algorithm != kAlgorithm)
        return standin::Wrong(__func__, "only ALLTOALLV by AIV to all ranks is played here");
    const HcclResult met = standin::MeetToBuildLinks(*communicator, __func__);
    if (met != HCCL_SUCCESS) return met;
    Linked& linked = LinkedGroups();
    std::lock_guard<std::mutex> lock(linked.mutex);
    linked.groups.insert(communicator->name());
    *context = communicator->window(communicator->rank()).device_address;
    return HCCL_SUCCESS;
}

// Known are the buffers behind links that a core can write through: of the own rank and of a rank
// that is joined by RDMA there is none, which is HCCL_E_PTR (hcomm:src/framework/op_base/src/
// op_base_mc2.cc:358, src/framework/communicator/impl/hccl_communicator_host.cc:8686, v9.0.0).
HcclResult HcclGetRemoteIpcHcclBuf(HcclComm comm, uint64_t rank, void** address, uint64_t* bytes) {
    const auto communicator = standin::OfHandle(comm);
    if (communicator == nullptr || rank >= standin::kMaxRanks)
        return standin::Wrong(__func__, "no communicator, or no such rank");
    Linked& linked = LinkedGroups();
    std::lock_guard<std::mutex> lock(linked.mutex);
    if (linked.groups.count(communicator->name()) == 0)
        return standin::Wrong(__func__, "no links yet: HcclCreateOpResCtx comes first");
    *address = nullptr;
    *bytes = 0;
    if (!Reached(*communicator, static_cast<uint32_t>(rank))) {
        standin::Fail(0, "%s: no link of a core to rank %lu", __func__, rank);
        return HCCL_E_PTR;
    }
    const standin::Window window = communicator->window(static_cast<uint32_t>(rank));
    *address = window.device_address;
    *bytes = window.bytes + standin::kExpBytes;
    return HCCL_SUCCESS;
}

}  // extern "C"
