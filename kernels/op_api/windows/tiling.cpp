// Windows by HcclAllocComResourceByTiling, the way of CANN 8.x.
//
// CANN 8 has no public function for the address of a remote buffer. What it has is the resource
// call behind its own communicating operators: given their tiling, it builds the links and returns
// a structure in device memory, from which those operators read the addresses at fixed offsets.
// We make the call and read the structure once, on the host.
//
//   1. tiling of one all-to-all task, engine AIV
//   2. HcclAllocComResourceByTiling: builds the links; collective
//   3. which of two structures it is follows HcomGetL0TopoTypeEx: bit 0 set is a mesh (A2, one
//      server), else the general one (A3)
//   4. copy it to the host and check it before believing it
//
// The structures are private to CANN. Their offsets were computed from each published header
// (mirror-cann/ops-transformer, vllm-ascend, pto-isa, CANN 8.1's own); those before the tail have
// not moved from 8.1 to 9.2. One published header of autumn 2025 says 3320 for the remote ranks
// instead of 2984: it was wrong and was corrected, but a CANN built from it may exist. So a CANN
// that is not in the list is refused, and so is a structure that contradicts the communicator.
#include <vector>

#include "windows/by_tiling.h"

namespace ascend_moe {
namespace {

using cann::Cann;
using cann::kHcclSuccess;

constexpr uint32_t kMeshBit = 1;
constexpr uint32_t kMeshRanks = 32;
constexpr uint32_t kMaxRanks = 1024;

// Both structures start alike.
struct Head {
    uint64_t workspace, workspace_bytes;
    uint32_t rank, ranks;
    uint64_t window_bytes;
};
static_assert(sizeof(Head) == 32);

// The mesh structure: Head, then the window of each rank; at its end a flag, set when the group
// spans servers. Then the windows are not filled in (rdma.cpp).
constexpr uint64_t kMeshWindows = 32;
constexpr uint64_t kMeshSpansServers = 8872;

// The general one: Head, the own two windows, then far behind the number of remote ranks and a pair
// of pointers for each. The second points to device memory with what is known of that rank. HCCL
// never counts the remote ranks: the number is 0 (hcomm:src/framework/communicator/impl/
// hccl_communicator.cc:128, v8.5.0; :115, v9.0.0 and v9.1.0-beta.1; no other write). A count that
// no group can have still shows a layout that is not this one.
constexpr uint64_t kOwnWindow = 32;
constexpr uint64_t kRemoteCount = 2980;
constexpr uint64_t kRemotes = 2984;
struct Remote {
    uint64_t host, device;
};
struct Relation {
    uint32_t rank, world_rank;
    uint64_t window;
};

Attempt Contradiction(const std::string& what) {
    return Attempt::Failed("the structure of HcclAllocComResourceByTiling is not the known one: " +
                           what);
}

Attempt ReadMesh(uint64_t structure, Windows* found) {
    if (found->ranks > kMeshRanks)
        return Contradiction("a mesh of " + std::to_string(found->ranks) + " ranks");
    uint8_t spans_servers = 0;
    if (!ReadDevice(structure + kMeshSpansServers, &spans_servers, sizeof(spans_servers)))
        return Attempt::Failed("cannot read the flag of the mesh");
    if (spans_servers != 0)
        return Attempt::Unreachable("the group spans servers, so its mesh has no windows");
    return ReadDevice(structure + kMeshWindows, found->base.data(), 8 * found->ranks)
               ? Attempt::Found()
               : Attempt::Failed("cannot read the windows of the mesh");
}

Attempt ReadRemote(const Remote& remote, uint32_t rank, Windows* found) {
    if (remote.device == 0) return Contradiction("no relation to rank " + std::to_string(rank));
    Relation relation = {};
    if (!ReadDevice(remote.device, &relation, sizeof(relation)))
        return Contradiction("cannot read the relation to rank " + std::to_string(rank) + " at " +
                             Hex(remote.device));
    if (relation.rank != rank)
        return Contradiction("the relation to rank " + std::to_string(rank) + " is one to rank " +
                             std::to_string(relation.rank));
    found->base[rank] = relation.window;
    return Attempt::Found();
}

Attempt ReadGeneral(uint64_t structure, Windows* found) {
    const uint32_t ranks = found->ranks;
    uint32_t count = 0;
    std::vector<Remote> remotes(ranks);
    if (!ReadDevice(structure + kOwnWindow, &found->base[found->rank], 8) ||
        !ReadDevice(structure + kRemoteCount, &count, sizeof(count)) ||
        !ReadDevice(structure + kRemotes, remotes.data(), sizeof(Remote) * ranks))
        return Attempt::Failed("cannot read the structure of HcclAllocComResourceByTiling");
    if (count > ranks)
        return Contradiction("it has " + std::to_string(count) + " remote ranks, the group " +
                             std::to_string(ranks) + " ranks");
    for (uint32_t rank = 0; rank < ranks; ++rank) {
        if (rank == found->rank) continue;
        const Attempt step = ReadRemote(remotes[rank], rank, found);
        if (step.outcome != Attempt::kFound) return step;
    }
    // HCCL may keep a relation to the own rank; then it must agree.
    if (remotes[found->rank].device == 0) return Attempt::Found();
    const uint64_t own = found->base[found->rank];
    const Attempt step = ReadRemote(remotes[found->rank], found->rank, found);
    if (step.outcome == Attempt::kFound && found->base[found->rank] != own)
        return Contradiction("the own window is " + Hex(own) + " and " +
                             Hex(found->base[found->rank]));
    return step;
}

// The communicator itself is the witness: rank, number of ranks, and where it is asked too, size.
Attempt ReadStructure(uint64_t structure, cann::HcclComm comm, bool mesh, Windows* found) {
    Head head = {};
    if (!ReadDevice(structure, &head, sizeof(head)))
        return Attempt::Failed("cannot read the structure of HcclAllocComResourceByTiling");
    uint32_t rank = 0;
    uint32_t ranks = 0;
    if (Cann().HcclGetRankSize(comm, &ranks) != kHcclSuccess ||
        Cann().HcclGetRankId(comm, &rank) != kHcclSuccess)
        return Attempt::Failed("HcclGetRankSize or HcclGetRankId fails");
    if (head.rank != rank || head.ranks != ranks || ranks == 0 || ranks > kMaxRanks)
        return Contradiction("it says rank " + std::to_string(head.rank) + " of " +
                             std::to_string(head.ranks) + ", the communicator rank " +
                             std::to_string(rank) + " of " + std::to_string(ranks));
    if (head.window_bytes == 0 || head.window_bytes % 512 != 0)
        return Contradiction("a window of " + std::to_string(head.window_bytes) + " bytes");
    found->rank = rank;
    found->ranks = ranks;
    found->bytes = head.window_bytes;
    found->base.assign(ranks, 0);
    return mesh ? ReadMesh(structure, found) : ReadGeneral(structure, found);
}

}  // namespace

Attempt FromTiling(const std::string& group, aclrtStream stream, Windows* found) {
    const cann::Symbols& c = Cann();
    const std::string missing =
        cann::Missing(c.HcomGetCommHandleByGroup, c.HcclGetRankSize, c.HcclGetRankId,
                      c.HcomGetL0TopoTypeEx, c.HcclAllocComResourceByTiling);
    if (!missing.empty()) return Attempt::Absent("CANN has no " + missing);
    const Attempt version = CheckHcclVersion({"8.1", "8.2", "8.3", "8.5", "9.0", "9.1", "9.2"});
    if (version.outcome != Attempt::kFound) return version;
    uint32_t topology = 0;
    const auto result = c.HcomGetL0TopoTypeEx(group.c_str(), &topology, uint32_t{0});
    if (result != kHcclSuccess) return Attempt::Of("HcomGetL0TopoTypeEx", result);
    Resource resource;
    const Attempt asked =
        AskByTiling(group, stream, cann::kOpAllToAllV, cann::kAllToAllEverywhere, &resource);
    if (asked.outcome != Attempt::kFound) return asked;
    return ReadStructure(resource.structure, resource.comm, (topology & kMeshBit) != 0, found);
}

}  // namespace ascend_moe
