// HCCL's private context of a group that spans servers, as read from the device and checked.
//
//   structure     rank, ranks, size of a buffer; the flag; where the rest is
//   ranks         each rank's buffers, as this rank may use them
//   capability    who may post RDMA writes
//   queues        the root of what a vector core posts by: send queues, regions with their keys
//                 (rdma_abi.h)
//
// The layout: hcomm, src/pub_inc/aicpu_operator_pub.h:109 v8.5.0, :110 v9.0.0 and v9.1.0-beta.1;
// src/pub_inc/transport_pub.h:113, 355. The same in all three and at HEAD, whose own test asserts
// it (test/ut/framework/resource/ut_HcclCombinOpParam_910B_size_check.cc:20). On A3 it is another
// structure, with a relation per rank in the place of the table of ranks and without a capability;
// the queue tables are the same. HCCL promises nobody
// that it stays so: what contradicts the communicator, the rank graph or another table is refused
// by name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rdma_abi.h"

namespace ascend_moe {

// The head of the structure, at 16, and its end.
struct CardHead {
    uint32_t rank, ranks;
    uint64_t buffer_bytes;  // of "in", of "out"
};
struct CardEnd {
    uint8_t spans_servers, padding[7];
    uint64_t ranks, ranks_bytes;
    uint64_t queues_bytes, queues;
    uint64_t capability, capability_bytes;
};
static_assert(sizeof(CardHead) == 16 && sizeof(CardEnd) == 56);

// Of each rank. Those of the own server have no keys: cores reach them.
struct CardRank {
    Region remote_in, remote_out, local_in, local_out;
    uint64_t queue_pair[2];
    int32_t mode;
    uint32_t padding;
};
static_assert(sizeof(CardRank) == 120);

// What the communicator and the rank graph say.
struct CardWitness {
    uint32_t rank, ranks;
    uint64_t in = 0, buffer_bytes = 0;  // of this rank; 0: HCCL tells nobody (before 9.0)
    std::vector<uint32_t> here;         // the ranks of this server
    std::vector<uint32_t> rail;         // the ranks that it has a queue to
};

struct CardTables {
    CardHead head;
    CardEnd end;
    uint64_t capability;
    std::vector<CardRank> ranks;
    QueueTables queues;
    std::vector<SendQueue> send;  // by rank, then by queue
    std::vector<Region> regions;  // by rank, then by RegionIndex
};

// Both return what is wrong, naming field, value and limit; empty: nothing. Reading checks what it
// follows.
std::string ReadCardTables(uint64_t structure, const CardWitness& witness, CardTables* tables);
std::string ReadCardTablesOnA3(uint64_t structure, const CardWitness& witness, CardTables* tables);
std::string CheckCardTables(const CardTables& tables, const CardWitness& witness);

}  // namespace ascend_moe
