// Windows and queues of a group that spans servers, by HCCL's private context.
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
// framework/op_base/src/op_base.cc:4187). CANN's own kernels for hierarchy want the same ones, so
// such a group can be left to them. Those for full mesh do not: they have the AI CPU post to every
// rank, of the own server too (ops-transformer 3a280bcc, mc2/moe_distribute_dispatch_v2/op_kernel/
// arch22/moe_distribute_dispatch_a2.h:663), where these links are no queue pairs (hcomm v9.0.0,
// src/framework/communicator/impl/hccl_communicator.cc:2588). And the links of full mesh have no
// queues for a vector core (hccl_communicator_host.cc:7891). So full mesh over servers asks here
// too, when all ranks have agreed to run our kernels, and there is no way back.
//
// HcclCreateOpResCtx is not asked: 9.0 and 9.1 refuse it on A2 (src/framework/op_base/src/
// op_base_mc2.cc:134, v9.0.0), and where it is not refused it makes the same structure (HEAD,
// src/legacy/ ascend910/framework/op_base/src/op_base_mc2.cc:182). CANN before 8.5 has no tables.
//
// On A3 the call is the same with an algorithm of its own, there from 9.0 on; links of other
// algorithms stay. A queue leads to each rank with the same number in its server, and to no other
// (hcomm v9.0.0, src/framework/communicator/impl/hccl_communicator_host.cc:5134, 6026).
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "driver.h"
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

// What differs between the products: how hierarchy is asked for, since when, and which ranks of
// other servers queues lead to. HCCL asks the driver whether a vector core may post, by a private
// interface (hcomm v9.0.0, src/platform/common/device_capacity.cc:286); the version is that of the
// documents of hierarchy on A2 (ops-transformer 3a280bcc, docs/aclnnMoeDistributeDispatchV4.md).
struct Product {
    uint32_t op;
    const char* algorithm;
    std::vector<const char*> versions;
    std::string (*read)(uint64_t, const CardWitness&, CardTables*);
    bool rail_alone;   // those with the same number in their server
    int first_driver;  // the first part of its version
};

const Product* ProductHere() {
    static const Product a2{cann::kOpBatchWrite,
                            cann::kHierarchy,
                            {"8.5", "9.0", "9.1", "9.2"},
                            ReadCardTables,
                            false,
                            25};
    static const Product a3{cann::kOpAllToAllV,
                            cann::kHierarchyOnA3,
                            {"9.0", "9.1", "9.2"},
                            ReadCardTablesOnA3,
                            true,
                            0};
    const char* soc = aclrtGetSocName();
    if (strncmp(soc, "Ascend910B", strlen("Ascend910B")) == 0) return &a2;
    return strncmp(soc, "Ascend910_93", strlen("Ascend910_93")) == 0 ? &a3 : nullptr;
}

}  // namespace

std::string WhyNoQueues() {
    const Product* product = ProductHere();
    if (product == nullptr) return std::string("it is for A2 and A3, this is ") + aclrtGetSocName();
    const cann::Symbols& c = Cann();
    const std::string missing = cann::Missing(c.HcomGetCommHandleByGroup, c.HcclGetRankSize,
                                              c.HcclGetRankId, c.HcclAllocComResourceByTiling);
    if (!missing.empty()) return "CANN has no " + missing;
    const std::string version = CheckHcclVersion(product->versions).why;
    if (!version.empty()) return version;
    const std::string driver = DriverVersion();
    if (driver.empty() || atoi(driver.c_str()) >= product->first_driver) return "";
    return "driver " + driver + " lets no vector core post RDMA writes (25.0.RC1.1 or later does)";
}

Attempt FromRdma(const std::string& group, aclrtStream stream, Windows* found) {
    const std::string absent = WhyNoQueues();
    if (!absent.empty()) return Attempt::Absent(absent);
    const Product* product = ProductHere();
    Servers servers;
    if (FindServers(group, &servers) != ACL_SUCCESS) return Attempt::Failed(TakeText());
    if (!servers.known) return Attempt::Absent("CANN has no rank graph, which says who is where");
    CardWitness witness{};
    const Attempt asked = Ask(group, &witness);
    if (asked.outcome != Attempt::kFound) return asked;
    witness.here = servers.here;
    const size_t whole = servers.here.size();
    for (uint32_t rank = 0; rank < witness.ranks; ++rank) {
        const bool here = std::count(servers.here.begin(), servers.here.end(), rank) > 0;
        if (!here && (!product->rail_alone || rank % whole == witness.rank % whole))
            witness.rail.push_back(rank);
    }
    Resource resource;
    const Attempt made = AskByTiling(group, stream, product->op, product->algorithm, &resource);
    if (made.outcome != Attempt::kFound) return made;
    CardTables tables;
    std::string problem = product->read(resource.structure, witness, &tables);
    if (problem.empty()) problem = CheckCardTables(tables, witness);
    return problem.empty()
               ? Found(tables, witness, found)
               : Attempt::Failed("HCCL's private context is not the known one: " + problem);
}

}  // namespace ascend_moe
