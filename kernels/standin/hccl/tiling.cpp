// HcclAllocComResourceByTiling: the resource call behind CANN's communicating operators, and the
// private structure it returns in device memory: on A3 the general one, on A2 that of a mesh.
//
// Of a window, the structure knows the half that HCCL calls "in", on A2 both. What each field holds
// and where HCCL writes it: docs/build-npu.md. For tests only: ASCEND_MOE_VNPU_HCCL_STREAMS=40 lays
// the general structure out as the wrong public header of autumn 2025 did; structure.h spoils
// fields.
#include <algorithm>
#include <map>
#include <mutex>
#include <vector>

#include "mesh.h"
#include "offer.h"
#include "queues.h"
#include "structure.h"

namespace {

using standin::A2;
using standin::Communicator;
using standin::Field;
using standin::Structure;

// Mc2InitTiling, then Mc2CcTiling.
constexpr size_t kTask = 64;
constexpr size_t kTaskEngine = kTask + 13;
constexpr size_t kTaskGroup = kTask + 16;
constexpr size_t kTaskAlgorithm = kTask + 144;
constexpr size_t kTaskOp = kTask + 272;
constexpr size_t kTaskRest = kTask + 280;
constexpr size_t kTaskEnd = kTask + 512;

constexpr char kAllToAll[] = "AlltoAll=level0:fullmesh;level1:pairwise";
constexpr char kHierarchyOnA3[] = "AlltoAll=level1:hierarchy";

constexpr int64_t kStreams = 19;
constexpr size_t kStreamBytes = 16;
constexpr size_t kRemoteCount = 2980;
// At the end, behind room for 128 * 1024 remote ranks: the bytes of HcclAiRMAInfo, and where it is.
// From CANN 9.0 on (hcomm v9.0.0, src/pub_inc/aicpu_operator_pub.h:682).
constexpr size_t kQueueTables = 2122704;

uint64_t InWindow(const Communicator& communicator, uint32_t rank) {
    return reinterpret_cast<uint64_t>(communicator.window(rank).device_address);
}

uint64_t RelationTo(const Communicator& communicator, uint32_t rank) {
    Structure relation("relation", 256);
    relation.Set(0, rank);
    relation.Set(4, rank);
    relation.Set(8, InWindow(communicator, rank));
    relation.Set(16, InWindow(communicator, rank) + communicator.window(rank).bytes / 2);
    return relation.ToDevice();
}

uint64_t MakeGeneral(Communicator& communicator, bool hierarchy) {
    const int64_t streams = standin::IntegerOption("ASCEND_MOE_VNPU_HCCL_STREAMS", kStreams);
    const size_t count = kRemoteCount + kStreamBytes * (streams - kStreams);
    // What lies between is other people's: stream and notify numbers.
    const size_t bytes =
        hierarchy ? kQueueTables + 16 : count + 4 + 16 * communicator.size() + 4096;
    Structure general("general", bytes, '\x01');
    general.Set(16, communicator.rank());
    general.Set(20, communicator.size());
    general.Set<uint64_t>(24, communicator.window(communicator.rank()).bytes / 2);
    general.Set(32, InWindow(communicator, communicator.rank()));
    general.Set(40, InWindow(communicator, communicator.rank()) +
                        communicator.window(communicator.rank()).bytes / 2);
    general.Set(count, uint32_t{0});
    for (uint32_t rank = 0; rank < communicator.size(); ++rank) {
        const bool none =
            rank == communicator.rank() || (hierarchy && !standin::Linked(communicator, rank));
        general.Set(count + 4 + 16 * rank, uint64_t{0});
        general.Set(count + 4 + 16 * rank + 8, none ? 0 : RelationTo(communicator, rank));
    }
    if (hierarchy) {
        uint64_t tables = 0;
        general.Set(kQueueTables + 8, standin::MakeQueueTables(communicator, &tables));
        general.Set(kQueueTables, tables);
    }
    return general.ToDevice();
}

// What is played: one task by vector cores. HCCL itself looks at group and algorithm alone on A2.
bool IsPlayed(const void* tiling, const std::string& algorithm) {
    const uint32_t op = Field<uint32_t>(tiling, kTaskOp);
    const bool queues = !A2() && standin::PlayedCann()->kfc && algorithm == kHierarchyOnA3;
    const bool all_to_all = op == 8 && (algorithm == kAllToAll || queues);
    const bool batch_write = A2() && op == 18 && algorithm.rfind("BatchWrite=", 0) == 0;
    return Field<uint32_t>(tiling, 0) == 100 && Field<uint32_t>(tiling, 4) == 1 &&
           Field<uint32_t>(tiling, 8) == kTask && Field<uint8_t>(tiling, kTaskEngine) == 3 &&
           (all_to_all || batch_write);
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
    const std::string algorithm = static_cast<const char*>(tiling) + kTaskAlgorithm;
    if (!IsPlayed(tiling, algorithm))
        return standin::Wrong(__func__,
                              "only the tiling of one ALLTOALLV, on A2 also BATCH_WRITE, by AIV is "
                              "played here");
    const char* bytes = static_cast<const char*>(tiling);
    if (std::any_of(bytes + kTaskRest, bytes + kTaskEnd, [](char byte) { return byte != 0; }))
        return standin::Wrong(__func__, "the tiling of a task ends in 232 zero bytes");
    if (communicator->name() != static_cast<const char*>(tiling) + kTaskGroup)
        return standin::Wrong(__func__, "the tiling names another group");
    const bool hierarchy = A2() ? standin::IsHierarchy(algorithm) : algorithm == kHierarchyOnA3;
    const auto first = [&] {
        std::lock_guard<std::mutex> lock(mutex);
        return made->count(communicator->name()) == 0;
    };
    if (A2() && !communicator->ReachesAll() && first()) standin::ClearBuffers(*communicator);
    const HcclResult met = standin::MeetToBuildLinks(*communicator, __func__);
    if (met != HCCL_SUCCESS) return met;
    std::lock_guard<std::mutex> lock(mutex);
    // What is there is given again: on A2 whatever is asked, while on A3 links are added.
    const bool more = !A2() && hierarchy;
    uint64_t& structure = (*made)[communicator->name() + (more ? " and queues" : "")];
    if (structure == 0)
        structure = A2() ? standin::MakeMesh(*communicator, hierarchy)
                         : MakeGeneral(*communicator, hierarchy);
    *context = reinterpret_cast<void*>(structure);
    return structure == 0 ? HCCL_E_MEMORY : HCCL_SUCCESS;
}

}  // extern "C"
