// HcclAllocComResourceByTiling: the resource call behind CANN's communicating operators, and the
// private structure it returns in device memory: on A3 the general one, on A2 that of a mesh.
//
// Of a window, the structure knows the half that HCCL calls "in". What each field holds and where
// HCCL writes it: docs/build-npu.md. For tests only: ASCEND_MOE_VNPU_HCCL_REMOTES=n writes n in
// place of the 0 that HCCL writes as the number of remote ranks, ASCEND_MOE_VNPU_HCCL_STREAMS=40
// lays the general structure out as the wrong public header of autumn 2025 did, and
// ASCEND_MOE_VNPU_HCCL_FAULT=rank|relation spoils what its name says.
#include <algorithm>
#include <map>
#include <mutex>
#include <vector>

#include "offer.h"

namespace {

using standin::A2;
using standin::Field;
using standin::SetField;

// Mc2InitTiling, then Mc2CcTiling.
constexpr size_t kTask = 64;
constexpr size_t kTaskEngine = kTask + 13;
constexpr size_t kTaskGroup = kTask + 16;
constexpr size_t kTaskOp = kTask + 272;
constexpr size_t kTaskRest = kTask + 280;
constexpr size_t kTaskEnd = kTask + 512;

constexpr int64_t kStreams = 19;
constexpr size_t kStreamBytes = 16;
constexpr size_t kRemoteCount = 2980;
constexpr size_t kMeshBytes = 8928;
constexpr size_t kMeshSpansServers = 8872;

// Kept as long as the process: HCCL keeps it as long as the communicator.
uint64_t ToDevice(const std::vector<char>& bytes) {
    void* address = nullptr;
    if (aclrtMalloc(&address, bytes.size(), ACL_MEM_MALLOC_HUGE_FIRST) != ACL_SUCCESS) return 0;
    aclrtMemcpy(address, bytes.size(), bytes.data(), bytes.size(), ACL_MEMCPY_HOST_TO_DEVICE);
    return reinterpret_cast<uint64_t>(address);
}

uint64_t InWindow(const standin::Communicator& communicator, uint32_t rank) {
    return reinterpret_cast<uint64_t>(communicator.window(rank).device_address);
}

void SetHead(std::vector<char>* structure, const standin::Communicator& communicator) {
    const uint32_t rank = communicator.rank();
    SetField(structure->data(), 16, standin::Fault("rank") ? rank + 1 : rank);
    SetField(structure->data(), 20, communicator.size());
    SetField<uint64_t>(structure->data(), 24, communicator.window(rank).bytes / 2);
}

uint64_t RelationTo(const standin::Communicator& communicator, uint32_t rank) {
    std::vector<char> relation(256);
    SetField(relation.data(), 0, standin::Fault("relation") ? rank + 1 : rank);
    SetField(relation.data(), 4, rank);
    SetField(relation.data(), 8, InWindow(communicator, rank));
    return ToDevice(relation);
}

uint64_t MakeMesh(const standin::Communicator& communicator) {
    std::vector<char> structure(kMeshBytes);
    SetHead(&structure, communicator);
    bool apart = false;
    for (uint32_t rank = 0; rank < communicator.size(); ++rank)
        apart = apart || !communicator.Reaches(rank);
    // hcomm:src/framework/communicator/impl/hccl_communicator_host.cc:7878, 6915 (v9.0.0).
    SetField<uint8_t>(structure.data(), kMeshSpansServers, apart ? 1 : 0);
    for (uint32_t rank = 0; rank < communicator.size() && !apart; ++rank)
        SetField(structure.data(), 32 + 8 * rank, InWindow(communicator, rank));
    return ToDevice(structure);
}

uint64_t MakeGeneral(const standin::Communicator& communicator) {
    const int64_t streams = standin::IntegerOption("ASCEND_MOE_VNPU_HCCL_STREAMS", kStreams);
    const size_t count = kRemoteCount + kStreamBytes * (streams - kStreams);
    // What lies between is other people's: stream and notify numbers.
    std::vector<char> structure(count + 4 + 16 * communicator.size() + 4096, '\x01');
    SetHead(&structure, communicator);
    SetField(structure.data(), 32, InWindow(communicator, communicator.rank()));
    const int64_t remotes = standin::IntegerOption("ASCEND_MOE_VNPU_HCCL_REMOTES", 0);
    SetField(structure.data(), count, static_cast<uint32_t>(remotes));
    for (uint32_t rank = 0; rank < communicator.size(); ++rank) {
        const bool none = rank == communicator.rank();
        const uint64_t relation = none ? 0 : RelationTo(communicator, rank);
        SetField(structure.data(), count + 4 + 16 * rank, uint64_t{0});
        SetField(structure.data(), count + 4 + 16 * rank + 8, relation);
    }
    return ToDevice(structure);
}

}  // namespace

extern "C" {

HcclResult HcomGetCommHandleByGroup(const char* group, HcclComm* comm) {
    const auto communicator = standin::Named(group);
    if (communicator == nullptr) return standin::Wrong(__func__, "no communicator of that name");
    *comm = communicator.get();
    return HCCL_SUCCESS;
}

// Kept by HCCL from the rank graph
// (hcomm:src/framework/communicator/impl/hccl_communicator_host.cc:341, v9.0.0).
HcclResult HcomGetL0TopoTypeEx(const char* group, uint32_t* topology, uint32_t) {
    if (standin::Named(group) == nullptr)
        return standin::Wrong(__func__, "no communicator of that name");
    *topology = standin::TopologyOf(0);
    return HCCL_SUCCESS;
}

HcclResult HcclAllocComResourceByTiling(HcclComm comm, void* stream, void* tiling, void** context) {
    static std::mutex mutex;
    static auto* made = new std::map<std::string, uint64_t>();
    const auto communicator = standin::OfHandle(comm);
    if (communicator == nullptr) return standin::Wrong(__func__, "no communicator");
    if (stream == nullptr) {
        standin::Fail(0, "%s: no stream", __func__);
        return HCCL_E_PTR;
    }
    if (Field<uint32_t>(tiling, 0) != 100 || Field<uint32_t>(tiling, 4) != 1 ||
        Field<uint32_t>(tiling, 8) != kTask || Field<uint8_t>(tiling, kTaskEngine) != 3 ||
        Field<uint32_t>(tiling, kTaskOp) != 8)
        return standin::Wrong(__func__, "only the tiling of one ALLTOALLV by AIV is played here");
    const char* bytes = static_cast<const char*>(tiling);
    if (std::any_of(bytes + kTaskRest, bytes + kTaskEnd, [](char byte) { return byte != 0; }))
        return standin::Wrong(__func__, "the tiling of a task ends in 232 zero bytes");
    if (communicator->name() != static_cast<const char*>(tiling) + kTaskGroup)
        return standin::Wrong(__func__, "the tiling names another group");
    const HcclResult met = standin::MeetToBuildLinks(*communicator, __func__);
    if (met != HCCL_SUCCESS) return met;
    std::lock_guard<std::mutex> lock(mutex);
    uint64_t& structure = (*made)[communicator->name()];
    if (structure == 0) structure = A2() ? MakeMesh(*communicator) : MakeGeneral(*communicator);
    *context = reinterpret_cast<void*>(structure);
    return structure == 0 ? HCCL_E_MEMORY : HCCL_SUCCESS;
}

}  // extern "C"
