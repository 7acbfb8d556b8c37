// See rdma_tables.h.
#include "windows/rdma_tables.h"

#include <algorithm>

#include "windows/table_checks.h"

namespace ascend_moe {
namespace {

constexpr uint64_t kHeadOffset = 16;
constexpr uint64_t kEndOffset = 8872;

// Of the general structure, A3's: the own two buffers, a pair of pointers (host, device) per rank,
// and at the end bytes and place of the queue tables (hcomm v9.0.0, src/pub_inc/
// aicpu_operator_pub.h:615; the same in v9.1.0-beta.1 and at HEAD; not in v8.5.0).
constexpr uint64_t kOwnBuffersOnA3 = 32;
constexpr uint64_t kRelationsOnA3 = 2984;
constexpr uint64_t kQueuesOnA3 = 2122704;

constexpr uint64_t kVectorCorePosts = 1 << 2;  // of the capability; bit 0 the host, bit 1 AICPU

// HCCL_RDMA_QPS_PER_CONNECTION: 1 to 32 (HCCL's page of that name; HCCL_QPS_PER_CONNECTION_MAX in
// its externalinput.cc).
constexpr uint32_t kMaxQueuesPerPeer = 32;
constexpr uint32_t kMinDepth = 128, kMaxDepth = 32768;
constexpr uint32_t kMaxServiceLevel = 7;
constexpr uint64_t kWindowAlignment = 512;

std::string CheckHead(const CardTables& t, const CardWitness& w) {
    const std::string of = "structure";
    return First({
        Exactly(of, "rank", t.head.rank, w.rank),
        Exactly(of, "number of ranks", t.head.ranks, w.ranks),
        w.buffer_bytes != 0 ? Exactly(of, "buffer bytes", t.head.buffer_bytes, w.buffer_bytes) : "",
        t.head.buffer_bytes != 0 && t.head.buffer_bytes % kWindowAlignment == 0
            ? ""
            : Wrong(of, "buffer bytes", t.head.buffer_bytes, "a multiple of 512"),
    });
}

std::string CheckEnd(const CardTables& t, const CardWitness& w) {
    const std::string of = "structure";
    return First({
        Exactly(of, "flag of several servers", t.end.spans_servers, 1),
        Exactly(of, "bytes of the table of ranks", t.end.ranks_bytes, sizeof(CardRank) * w.ranks),
        Address(of, "table of ranks", t.end.ranks, 8),
        t.end.capability_bytes >= sizeof(uint64_t)
            ? Address(of, "capability", t.end.capability, 8)
            : Wrong(of, "bytes of the capability", t.end.capability_bytes, "8 or more"),
    });
}

// HCCL makes queues for a vector core only if the driver can and hierarchy was asked for first.
std::string CheckCapability(const CardTables& t) {
    if ((t.capability & kVectorCorePosts) != 0) return "";
    return "no vector core may post RDMA writes here (capability " + Number(t.capability) +
           " without bit 2): the driver is too old (25.0.RC1.1 or later can), or an operator that "
           "is not "
           "hierarchy was the first of this group";
}

std::string CheckQueueTables(const CardTables& t, const CardWitness& w) {
    const std::string of = "queue tables";
    const uint32_t queues = t.queues.queues_per_peer;
    return First({
        Exactly(of, "rank", t.queues.rank, w.rank),
        Exactly(of, "number of ranks", t.queues.ranks, w.ranks),
        queues >= 1 && queues <= kMaxQueuesPerPeer
            ? ""
            : Wrong(of, "queues to a rank", queues, "1 to " + Number(kMaxQueuesPerPeer)),
        Exactly(of, "bytes of a send queue", t.queues.queue_bytes, sizeof(SendQueue)),
        Exactly(of, "bytes of a rank's regions", t.queues.peer_bytes, sizeof(PeerRegions)),
        Address(of, "send queues", t.queues.send_queues, 8),
        Address(of, "regions", t.queues.peers, 8),
    });
}

bool Contains(const std::vector<uint32_t>& ranks, uint32_t rank) {
    return std::find(ranks.begin(), ranks.end(), rank) != ranks.end();
}

std::string CheckQueue(const SendQueue& queue, const std::string& of) {
    const bool power = (queue.depth & (queue.depth - 1)) == 0;
    return First({
        power && queue.depth >= kMinDepth && queue.depth <= kMaxDepth
            ? ""
            : Wrong(of, "depth", queue.depth,
                    "a power of two from " + Number(kMinDepth) + " to " + Number(kMaxDepth)),
        queue.element_bytes >= sizeof(SendElement) && queue.element_bytes % 16 == 0
            ? ""
            : Wrong(of, "bytes of an element", queue.element_bytes,
                    Number(sizeof(SendElement)) + " or more, a multiple of 16"),
        queue.number < 1u << kDoorbellNumberBits
            ? ""
            : Wrong(of, "number", queue.number, "of " + Number(kDoorbellNumberBits) + " bits"),
        Exactly(of, "doorbell mode", queue.doorbell_mode, kHardwareDoorbell),
        queue.service_level <= kMaxServiceLevel
            ? ""
            : Wrong(of, "service level", queue.service_level, "0 to " + Number(kMaxServiceLevel)),
        Address(of, "elements", queue.buffer, 64),
        Address(of, "head", queue.head, 4),
        Address(of, "tail", queue.tail, 4),
        Address(of, "doorbell", queue.doorbell, 8),
    });
}

// A region as both tables have it.
std::string CheckRegion(const Region& region, const Region& twin, const std::string& of,
                        uint64_t bytes, bool key) {
    return First({
        Exactly(of, "bytes", region.bytes, bytes),
        Address(of, "address", region.address, kWindowAlignment),
        region.address == twin.address && region.bytes == twin.bytes && region.key == twin.key
            ? ""
            : of + ": " + Hex(region.address) + " with key " + Number(region.key) +
                  " in the queue tables, " + Hex(twin.address) + " with key " + Number(twin.key) +
                  " in the table of ranks",
        (region.key != 0) == key ? "" : Wrong(of, "key", region.key, key ? "not 0" : "0"),
    });
}

std::string CheckFar(const CardTables& t, uint32_t rank) {
    const std::string of = " of rank " + Number(rank);
    for (uint32_t queue = 0; queue < t.queues.queues_per_peer; ++queue) {
        const SendQueue& send = t.send[rank * t.queues.queues_per_peer + queue];
        const std::string problem = CheckQueue(send, "send queue " + Number(queue) + of);
        if (!problem.empty()) return problem;
    }
    const Region* regions = &t.regions[rank * kRegions];
    const CardRank& entry = t.ranks[rank];
    const CardRank& own = t.ranks[t.head.rank];
    const uint64_t bytes = t.head.buffer_bytes;
    const std::string to = " to rank " + Number(rank);
    return First({
        CheckRegion(regions[kRemoteInput], entry.remote_in, "input" + of, bytes, true),
        CheckRegion(regions[kRemoteOutput], entry.remote_out, "output" + of, bytes, true),
        CheckRegion(regions[kLocalInput], entry.local_in, "own input" + to, bytes, true),
        CheckRegion(regions[kLocalOutput], entry.local_out, "own output" + to, bytes, true),
        Exactly("own input" + to, "address", entry.local_in.address, own.local_in.address),
        Exactly("own output" + to, "address", entry.local_out.address, own.local_out.address),
    });
}

// None leads to a rank of this server, nor to one that is not on the rail.
std::string CheckNoQueue(const CardTables& t, uint32_t rank, const char* where) {
    for (uint32_t queue = 0; queue < t.queues.queues_per_peer; ++queue) {
        const SendQueue& send = t.send[rank * t.queues.queues_per_peer + queue];
        if (send.depth == 0) continue;
        return Exactly("send queue of rank " + Number(rank) + " " + where, "depth", send.depth, 0);
    }
    return "";
}

std::string CheckNear(const CardTables& t, uint32_t rank) {
    const std::string of = " of rank " + Number(rank) + " in this server";
    const Region* regions = &t.regions[rank * kRegions];
    const uint64_t bytes = t.head.buffer_bytes;
    return First({
        CheckNoQueue(t, rank, "in this server"),
        CheckRegion(regions[kRemoteInput], t.ranks[rank].remote_in, "input" + of, bytes, false),
        CheckRegion(regions[kRemoteOutput], t.ranks[rank].remote_out, "output" + of, bytes, false),
    });
}

std::string CheckOwn(const CardTables& t, const CardWitness& w) {
    const CardRank& entry = t.ranks[w.rank];
    const Region* regions = &t.regions[w.rank * kRegions];
    const uint64_t bytes = t.head.buffer_bytes;
    return First({
        CheckNoQueue(t, w.rank, "in this server"),
        CheckRegion(regions[kLocalInput], entry.local_in, "own input", bytes, false),
        CheckRegion(regions[kLocalOutput], entry.local_out, "own output", bytes, false),
        w.in == 0 || w.in == entry.local_in.address
            ? ""
            : "own input: " + Hex(entry.local_in.address) + ", HcclGetHcclBuffer says " + Hex(w.in),
    });
}

// Two queues with one head would be one queue that two cores post to.
std::string CheckApart(const CardTables& t) {
    std::vector<uint64_t> heads;
    for (const SendQueue& queue : t.send) {
        if (queue.depth != 0) heads.push_back(queue.head);
    }
    std::sort(heads.begin(), heads.end());
    const auto twice = std::adjacent_find(heads.begin(), heads.end());
    return twice == heads.end() ? "" : "two send queues have their head at " + Hex(*twice);
}

std::string ReadRegions(const CardWitness& w, CardTables* t) {
    std::vector<PeerRegions> peers;
    std::string problem = Take("regions", t->queues.peers, w.ranks, &peers);
    t->regions.clear();
    for (uint32_t rank = 0; rank < w.ranks && problem.empty(); ++rank) {
        const std::string of = "regions of rank " + Number(rank);
        problem = First({Exactly(of, "number", peers[rank].count, kRegions),
                         Exactly(of, "bytes of one", peers[rank].region_bytes, sizeof(Region)),
                         Address(of, "list", peers[rank].regions, 8)});
        std::vector<Region> regions;
        if (problem.empty()) problem = Take(of.c_str(), peers[rank].regions, kRegions, &regions);
        t->regions.insert(t->regions.end(), regions.begin(), regions.end());
    }
    return problem;
}

std::string ReadQueueTables(const CardWitness& w, CardTables* t) {
    std::string problem;
    if (t->end.queues_bytes < sizeof(QueueTables))
        problem = Wrong("structure", "bytes of the queue tables", t->end.queues_bytes,
                        Number(sizeof(QueueTables)) + " or more");
    if (problem.empty()) problem = Address("structure", "queue tables", t->end.queues, 8);
    if (problem.empty()) problem = Take("queue tables", t->end.queues, &t->queues);
    if (problem.empty()) problem = CheckQueueTables(*t, w);
    if (problem.empty())
        problem = Take("send queues", t->queues.send_queues,
                       size_t{w.ranks} * t->queues.queues_per_peer, &t->send);
    return problem.empty() ? ReadRegions(w, t) : problem;
}

// What A3 has in the place of a table of ranks: the own buffers, and a relation to each rank that
// has a link. They say addresses alone; sizes and keys are those of the queue tables.
std::string ReadRelations(uint64_t structure, const CardWitness& w, CardTables* t) {
    uint64_t own[2] = {};
    std::vector<uint64_t> relations;
    std::string problem = Take("own buffers", structure + kOwnBuffersOnA3, &own);
    if (problem.empty())
        problem = Take("relations", structure + kRelationsOnA3, 2 * size_t{w.ranks}, &relations);
    t->ranks.assign(w.ranks, CardRank{});
    for (uint32_t rank = 0; rank < w.ranks && problem.empty(); ++rank) {
        const Region* regions = &t->regions[rank * kRegions];
        CardRank& entry = t->ranks[rank];
        entry.local_in = regions[kLocalInput];
        entry.local_out = regions[kLocalOutput];
        entry.remote_in = regions[kRemoteInput];
        entry.remote_out = regions[kRemoteOutput];
        if (rank == w.rank) {
            entry.local_in.address = own[0];
            entry.local_out.address = own[1];
        } else if (Contains(w.here, rank) || Contains(w.rail, rank)) {
            struct {
                uint32_t rank, world_rank;
                uint64_t in, out;
            } relation = {};
            const std::string of = "relation to rank " + Number(rank);
            const uint64_t at = relations[2 * rank + 1];
            problem = Address(of, "relation", at, 8);
            if (problem.empty()) problem = Take(of.c_str(), at, &relation);
            if (problem.empty()) problem = Exactly(of, "rank", relation.rank, rank);
            entry.remote_in.address = relation.in;
            entry.remote_out.address = relation.out;
        }
    }
    return problem;
}

}  // namespace

std::string ReadCardTables(uint64_t structure, const CardWitness& w, CardTables* t) {
    std::string problem = Take("structure", structure + kHeadOffset, &t->head);
    if (problem.empty()) problem = Take("structure", structure + kEndOffset, &t->end);
    if (problem.empty()) problem = CheckHead(*t, w);
    if (problem.empty()) problem = CheckEnd(*t, w);
    if (problem.empty()) problem = Take("capability", t->end.capability, &t->capability);
    if (problem.empty()) problem = CheckCapability(*t);
    if (problem.empty()) problem = Take("table of ranks", t->end.ranks, w.ranks, &t->ranks);
    return problem.empty() ? ReadQueueTables(w, t) : problem;
}

std::string ReadCardTablesOnA3(uint64_t structure, const CardWitness& w, CardTables* t) {
    std::string problem = Take("structure", structure + kHeadOffset, &t->head);
    if (problem.empty()) problem = CheckHead(*t, w);
    uint64_t queues[2] = {};
    if (problem.empty()) problem = Take("structure", structure + kQueuesOnA3, &queues);
    t->end = {};
    t->end.queues_bytes = queues[0];
    t->end.queues = queues[1];
    if (problem.empty()) problem = ReadQueueTables(w, t);
    return problem.empty() ? ReadRelations(structure, w, t) : problem;
}

std::string CheckCardTables(const CardTables& t, const CardWitness& w) {
    std::string problem = CheckOwn(t, w);
    for (uint32_t rank = 0; rank < w.ranks && problem.empty(); ++rank) {
        if (rank == w.rank) continue;
        problem = Contains(w.here, rank)   ? CheckNear(t, rank)
                  : Contains(w.rail, rank) ? CheckFar(t, rank)
                                           : CheckNoQueue(t, rank, "of the other servers");
    }
    return problem.empty() ? CheckApart(t) : problem;
}

}  // namespace ascend_moe
