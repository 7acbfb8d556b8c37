// HcclCombinOpParam, HCCL's structure of a group on A2, 8928 bytes.
//
//   one server   the windows of all ranks, and the 1 MB behind each
//   several      none of these. A flag, the table of the ranks, what posts RDMA writes here, and
//   with
//                hierarchy the queues of a vector core (queues.h)
//
// Links within a server are of HCCS with hierarchy and of RDMA without, and what is asked first
// decides (hcomm v9.0.0: src/framework/op_base/src/op_base.cc:4187,
// src/framework/communicator/impl/ hccl_communicator_host.cc:6805). Offsets: HEAD,
// test/ut/framework/resource/ ut_HcclCombinOpParam_910B_size_check.cc:20; the structure is the same
// in src/pub_inc/ aicpu_operator_pub.h:109 of v8.5.0, :110 of v9.0.0 and v9.1.0-beta.1. Who fills
// it: the same file, 6858 and 7850.
#include "mesh.h"

#include <sys/mman.h>

#include <cstdlib>

#include "queues.h"
#include "structure.h"

namespace standin {
namespace {

constexpr size_t kBytes = 8928;
constexpr size_t kRank = 16;
constexpr size_t kRanks = 20;
constexpr size_t kWindowBytes = 24;
constexpr size_t kIn = 32;
constexpr size_t kOut = 288;
constexpr size_t kName = 544;
constexpr size_t kExpWindowBytes = 8608;
constexpr size_t kExp = 8616;
constexpr size_t kSpansServers = 8872;
constexpr size_t kRankTable = 8880;         // and its bytes
constexpr size_t kQueueTablesBytes = 8896;  // and where they are
constexpr size_t kCapability = 8912;        // and its bytes

// CombinedCapability: what may post (POS_DATA_PLANE_MODE_..). HOST, AICPU, and the vector core
// where the driver can and the links are those of hierarchy.
constexpr uint64_t kHost = 1, kAicpu = 2, kVectorCore = 4;

void SetWindows(Structure* mesh, const Communicator& communicator) {
    for (uint32_t rank = 0; rank < communicator.size(); ++rank) {
        const Window window = communicator.window(rank);
        const uint64_t in = reinterpret_cast<uint64_t>(window.device_address);
        mesh->Set(kIn + 8 * rank, in);
        mesh->Set(kOut + 8 * rank, in + window.bytes / 2);
        mesh->Set(kExp + 8 * rank, in + window.bytes);
    }
}

void SetCard(Structure* mesh, Communicator& communicator, bool hierarchy) {
    uint64_t bytes = 0;
    mesh->Set(kSpansServers, uint8_t{1});
    mesh->Set(kRankTable, MakeRankTable(communicator, hierarchy, &bytes));
    mesh->Set(kRankTable + 8, bytes);
    if (hierarchy) {
        mesh->Set(kQueueTablesBytes + 8, MakeQueueTables(communicator, &bytes));
        mesh->Set(kQueueTablesBytes, bytes);
    }
    Structure capability("capability", 8);
    capability.Set(0, kHost | kAicpu | (hierarchy ? kVectorCore : 0));
    mesh->Set(kCapability, capability.ToDevice());
    mesh->Set(kCapability + 8, uint64_t{8});
}

}  // namespace

// hccl_communicator_host.cc:6814-6825.
bool IsHierarchy(const std::string& algorithm) {
    const auto is = [](const char* name, const char* value) {
        const char* text = getenv(name);
        return text != nullptr && strcmp(text, value) == 0;
    };
    const bool by_variables = algorithm == "BatchWrite=level0:fullmesh" &&
                              is("HCCL_INTRA_PCIE_ENABLE", "1") &&
                              is("HCCL_INTRA_ROCE_ENABLE", "0");
    return algorithm == "BatchWrite=level1:hierarchy" || by_variables;
}

// hccl_communicator_host.cc:7753 (CleanCCLbuffer). Pages that nobody has written stay unwritten.
void ClearBuffers(Communicator& communicator) {
    const Window own = communicator.window(communicator.rank());
    madvise(own.host_address, own.bytes, MADV_REMOVE);
}

uint64_t MakeMesh(Communicator& communicator, bool hierarchy) {
    const Window own = communicator.window(communicator.rank());
    Structure mesh("mesh", kBytes);
    mesh.Set(kRank, communicator.rank());
    mesh.Set(kRanks, communicator.size());
    mesh.Set(kWindowBytes, static_cast<uint64_t>(own.bytes / 2));
    mesh.SetText(kName, communicator.name());
    mesh.Set(kExpWindowBytes, static_cast<uint64_t>(kExpBytes));
    if (communicator.ReachesAll())
        SetWindows(&mesh, communicator);
    else
        SetCard(&mesh, communicator, hierarchy);
    return mesh.ToDevice();
}

}  // namespace standin
