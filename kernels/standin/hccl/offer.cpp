// Which ways to its windows HCCL offers depends on the version of CANN:
//
//   libstandin_tiling    all   HcclAllocComResourceByTiling
//   libstandin_kfc       9.x   HcclKfc..., HcclCreateOpResCtx, HcclGetRemoteIpcHcclBuf
//   libstandin_graph     8.5   HcclRankGraph...
//
// Each is a library of its own, loaded with libhccl when the CANN that is played has it, so that a
// function which that CANN lacks is really absent for dlsym. For tests only,
// ASCEND_MOE_VNPU_HIDE=kfc,tiling,graph takes away more of them. What all versions have is here.
#include "offer.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

namespace standin {
namespace {

bool Hidden(const std::string& name) {
    const char* hidden = getenv("ASCEND_MOE_VNPU_HIDE");
    return hidden != nullptr &&
           ("," + std::string(hidden) + ",").find("," + name + ",") != std::string::npos;
}

__attribute__((constructor)) void LoadWays() {
    const Cann* cann = PlayedCann();
    for (const std::string way : {"tiling", "kfc", "graph"}) {
        if (cann == nullptr || (way == "kfc" && !cann->kfc) || Hidden(way)) continue;
        const std::string library = "libstandin_" + way + ".so";
        if (dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr)
            fprintf(stderr, "[virtual NPU] %s\n", dlerror());
    }
}

}  // namespace

std::shared_ptr<Communicator> Named(const char* name) {
    return std::dynamic_pointer_cast<Communicator>(Group::Find(name == nullptr ? "" : name));
}

std::shared_ptr<Communicator> OfHandle(HcclComm comm) {
    char name[COMM_NAME_MAX_LENGTH] = {};
    if (comm == nullptr || HcclGetCommName(comm, name) != HCCL_SUCCESS) return nullptr;
    return Named(name);
}

HcclResult MeetToBuildLinks(Communicator& communicator, const char* call) {
    std::lock_guard<std::mutex> lock(communicator.links_mutex);
    Segment& segment = communicator.segment();
    const auto arrived = [&](uint32_t rank) -> std::atomic<uint32_t>& {
        return segment.state(rank).arrived[kLinks];
    };
    const uint32_t turn = arrived(communicator.rank()).fetch_add(1) + 1;
    segment.Notify();
    for (uint32_t rank = 0; rank < communicator.size(); ++rank) {
        const auto here = [&] { return static_cast<int32_t>(arrived(rank).load() - turn) >= 0; };
        const std::string problem =
            segment.WaitUntil(here, {rank}, IntegerOption("HCCL_CONNECT_TIMEOUT", 120));
        if (problem.empty()) continue;
        arrived(communicator.rank()).fetch_sub(1);  // not here any more: it may be tried again
        Fail(0, "%s of group %s: waiting for rank %u to build links: %s", call,
             communicator.name().c_str(), rank, problem.c_str());
        return HCCL_E_TIMEOUT;
    }
    return HCCL_SUCCESS;
}

bool A2() { return strncmp(aclrtGetSocName(), "Ascend910B", strlen("Ascend910B")) == 0; }

uint32_t TopologyOf(uint32_t layer) {
    constexpr uint32_t kClos = 0, kMesh = 1, kA3Mesh = 2;
    return layer > 0 ? kClos : A2() ? kMesh : kA3Mesh;
}

HcclResult Wrong(const char* call, const char* what) {
    Fail(0, "%s: %s", call, what);
    return HCCL_E_PARA;
}

}  // namespace standin

// 8.5 makes and shows the "in" buffer alone; later ones make both and the 1 MB behind them, and
// show both (hcomm:src/algorithm/impl/resource_manager/ccl_buffer_manager.cc:385 v8.5.0, :383
// v9.0.0).
extern "C" HcclResult HcclGetHcclBuffer(HcclComm comm, void** address, uint64_t* bytes) {
    const auto communicator = standin::OfHandle(comm);
    if (communicator == nullptr) return standin::Wrong("HcclGetHcclBuffer", "no communicator");
    const standin::Window window = communicator->window(communicator->rank());
    *address = window.device_address;
    *bytes = standin::PlayedCann()->whole_buffer ? window.bytes : window.bytes / 2;
    return HCCL_SUCCESS;
}
