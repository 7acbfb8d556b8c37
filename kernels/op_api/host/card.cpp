// See card.h.
#include "card.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "device/rdma_abi.h"
#include "standin.h"

namespace ascend_moe {
namespace {

template <typename T>
const T* At(uint64_t address, size_t count) {
    return static_cast<const T*>(
        standin::HostAddress(reinterpret_cast<const void*>(address), count * sizeof(T)));
}

// Of the table of a peer: the own buffers by their local keys, the peer's by the remote ones.
hostsim_region OwnRegion(uint32_t rank, const Region& region) {
    return {static_cast<int32_t>(rank), region.key, 0, region.address, region.bytes, nullptr};
}
hostsim_region PeerRegion(standin::Group& group, uint32_t rank, const Region& region) {
    return {static_cast<int32_t>(rank),
            0,
            region.key,
            region.address,
            region.bytes,
            group.ForCard(reinterpret_cast<const void*>(region.address), region.bytes)};
}

}  // namespace

Card::Card(const Group& group, std::string* problem) : group_(group) {
    const Windows& windows = group.ep_windows();
    if (windows.card.queues == 0) return;
    const auto found = standin::Group::Find(group.name);
    const QueueTables* tables = At<QueueTables>(windows.card.queues, 1);
    if (found == nullptr || tables == nullptr) {
        *problem = "the queue tables do not lie in live device memory";
        return;
    }
    const size_t count = size_t{tables->ranks} * tables->queues_per_peer;
    const SendQueue* queues = At<SendQueue>(tables->send_queues, count);
    const PeerRegions* peers = At<PeerRegions>(tables->peers, tables->ranks);
    if (queues == nullptr || peers == nullptr) {
        *problem = "the send queues, or the regions, do not lie in live device memory";
        return;
    }
    Add(windows.card.output, windows.bytes, "output window");
    Add(windows.card.queues, sizeof(*tables), "queue tables");
    Add(tables->send_queues, count * sizeof(*queues), "send queues");
    Add(tables->peers, tables->ranks * sizeof(*peers), "regions of peers");
    for (uint32_t i = 0; i < count; ++i) {
        const SendQueue& queue = queues[i];
        if (queue.depth == 0) continue;
        const uint32_t peer = i / tables->queues_per_peer;
        const std::string of = " of queue " + std::to_string(queue.number);
        const Region* regions = At<Region>(peers[peer].regions, kRegions);
        const uint32_t* head = At<uint32_t>(queue.head, 1);
        if (regions == nullptr || head == nullptr) {
            *problem = "the head" + of + " does not lie in live device memory";
            return;
        }
        Add(peers[peer].regions, kRegions * sizeof(Region),
            "regions of rank " + std::to_string(peer));
        Add(queue.buffer, uint64_t{queue.depth} * queue.element_bytes, "elements" + of);
        Add(queue.head, sizeof(uint32_t), "head" + of);
        Add(queue.tail, sizeof(uint32_t), "tail" + of);
        Add(queue.doorbell, kDoorbellBytes, "doorbell" + of);
        queues_.push_back({static_cast<int32_t>(group.ep_rank()), static_cast<int32_t>(peer),
                           queue.number, queue.element_bytes, queue.depth, queue.buffer, queue.head,
                           queue.tail, queue.doorbell, Delivers(peer, *head)});
        for (const RegionIndex local : {kLocalInput, kLocalOutput})
            regions_.push_back(OwnRegion(group.ep_rank(), regions[local]));
        for (const RegionIndex remote : {kRemoteInput, kRemoteOutput})
            regions_.push_back(PeerRegion(*found, peer, regions[remote]));
    }
}

void Card::Attach(hostsim_world* world) const {
    if (queues_.empty()) return;
    const auto found = standin::Group::Find(group_.name);
    for (uint32_t rank = 0; found != nullptr && rank < found->size(); ++rank)
        hostsim_server(world, static_cast<int32_t>(rank),
                       static_cast<int32_t>(found->place(rank).server));
    for (const hostsim_region& region : regions_) hostsim_add_region(world, &region);
    for (const hostsim_queue& queue : queues_) hostsim_add_queue(world, &queue);
}

void Card::Add(uint64_t begin, uint64_t bytes, const std::string& name) {
    memory_.push_back({begin, begin + bytes, name, group_.ep_rank()});
}

// -1: it lives.
int64_t Card::Delivers(uint32_t peer, uint32_t head) const {
    static const char* dead = getenv("ASCEND_MOE_VNPU_DEAD_QUEUE");
    uint32_t from = 0, to = 0, count = 0;
    if (dead == nullptr || sscanf(dead, "%u:%u:%u", &from, &to, &count) != 3 ||
        from != group_.ep_rank() || to != peer)
        return -1;
    return count > head ? count - head : 0;
}

}  // namespace ascend_moe
