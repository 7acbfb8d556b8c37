// Windows and queues of a group that spans A2 servers, by HCCL's private context.
//
// Between servers a vector core posts RDMA writes itself (rdma_abi.h). No public function of HCCL
// has the queues for it: they hang on the structure that its own operators are given, together with
// the addresses of the windows within the server.
//
//   1. HcclAllocComResourceByTiling, algorithm hierarchy: links of HCCS within a server, a queue
//   pair to
//      every rank of the others; collective
//   2. copy the structure and its tables to the host and check all of it (rdma_tables.h)
//
// What is asked of a communicator first decides its links as long as it lives (hcomm v9.0.0, src/
// framework/op_base/src/op_base.cc:4187). So this is for groups alone whose calls say hierarchy:
// CANN's own kernels want the same links then, and the group can be left to them.
//
// HcclCreateOpResCtx is not asked: 9.0 and 9.1 refuse it on A2 (src/framework/op_base/src/
// op_base_mc2.cc:134, v9.0.0), and where it is not refused it makes the same structure (HEAD,
// src/legacy/ ascend910/framework/op_base/src/op_base_mc2.cc:182). CANN before 8.5 has no tables.
#include <cstring>

#include "report.h"
#include "servers.h"
#include "windows/by_tiling.h"
#include "windows/rdma_tables.h"

namespace ascend_moe {
namespace {

using cann::Cann;
using cann::kHcclSuccess;

// What the communicator says of itself, before it is asked for anything. Its buffer only from CANN
// 9 on: 8.5 answers half of it and may allocate a second one (cann/abi.h).
Attempt Ask(const std::string& group, CardWitness* witness) {
    const cann::Symbols& c = Cann();
    cann::HcclComm comm = nullptr;
    auto result = c.HcomGetCommHandleByGroup(group.c_str(), &comm);
    if (result != kHcclSuccess) return Attempt::Of("HcomGetCommHandleByGroup", result);
    result = c.HcclGetRankSize(comm, &witness->ranks);
    if (result != kHcclSuccess) return Attempt::Of("HcclGetRankSize", result);
    result = c.HcclGetRankId(comm, &witness->rank);
    if (result != kHcclSuccess) return Attempt::Of("HcclGetRankId", result);
    if (witness->rank >= witness->ranks)
        return Attempt::Failed("HcclGetRankId is outside the group");
    if (c.HcclCommGetHandleWithName.call == nullptr || c.HcclGetHcclBuffer.call == nullptr)
        return Attempt::Found();
    void* address = nullptr;
    uint64_t bytes = 0;
    result = c.HcclGetHcclBuffer(comm, &address, &bytes);
    if (result != kHcclSuccess) return Attempt::Of("HcclGetHcclBuffer", result);
    witness->in = reinterpret_cast<uint64_t>(address);
    witness->buffer_bytes = bytes / 2;  // "in" and "out"
    return Attempt::Found();
}

Attempt Found(const CardTables& tables, const CardWitness& witness, Windows* found) {
    found->rank = witness.rank;
    found->ranks = witness.ranks;
    found->bytes = tables.head.buffer_bytes;
    found->base.assign(witness.ranks, 0);
    for (uint32_t rank : witness.here) found->base[rank] = tables.ranks[rank].remote_in.address;
    const CardRank& own = tables.ranks[witness.rank];
    found->base[witness.rank] = own.local_in.address;
    found->card = {tables.end.queues, own.local_out.address};
    return Attempt::Found();
}

}  // namespace

Attempt FromRdma(const std::string& group, aclrtStream stream, Windows* found) {
    if (strncmp(aclrtGetSocName(), "Ascend910B", strlen("Ascend910B")) != 0)
        return Attempt::Absent(std::string("it is for A2, this is ") + aclrtGetSocName());
    const cann::Symbols& c = Cann();
    const std::string missing = cann::Missing(c.HcomGetCommHandleByGroup, c.HcclGetRankSize,
                                              c.HcclGetRankId, c.HcclAllocComResourceByTiling);
    if (!missing.empty()) return Attempt::Absent("CANN has no " + missing);
    const Attempt version = CheckHcclVersion({"8.5", "9.0", "9.1", "9.2"});
    if (version.outcome != Attempt::kFound) return version;
    Servers servers;
    if (FindServers(group, &servers) != ACL_SUCCESS) return Attempt::Failed(TakeText());
    if (!servers.known) return Attempt::Absent("CANN has no rank graph, which says who is where");
    CardWitness witness{};
    const Attempt asked = Ask(group, &witness);
    if (asked.outcome != Attempt::kFound) return asked;
    witness.here = servers.here;
    Resource resource;
    const Attempt made =
        AskByTiling(group, stream, cann::kOpBatchWrite, cann::kHierarchy, &resource);
    if (made.outcome != Attempt::kFound) return made;
    CardTables tables;
    std::string problem = ReadCardTables(resource.structure, witness, &tables);
    if (problem.empty()) problem = CheckCardTables(tables, witness);
    return problem.empty()
               ? Found(tables, witness, found)
               : Attempt::Failed("HCCL's private context is not the known one: " + problem);
}

}  // namespace ascend_moe
