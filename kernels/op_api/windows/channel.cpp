// Windows by HCCL's channels, CANN 9.
//
//   1. for each other rank the rank graph is asked, layer by layer, for a link over which a core
//   can
//      copy: HCCS between packages, SIO between the two dies of one
//   2. HcclChannelAcquire: opens all channels at once, engine AIV; collective. Opening a channel is
//      what maps the remote buffer. A channel that exists already is given again.
//   3. HcclChannelGetHcclBuffer: where the buffer at the other end is mapped
//
// Channels belong to the communicator; nothing is to be freed.
//
// A channel can carry private memory too (HcclCommMemReg, HcclChannelGetRemoteMems), which would
// keep the control words out of the reach of collectives. HCCL has that on 950 only: the page of
// HcclCommMemReg (hicann/hcomm, v9.x) says "not supported" for A2 and A3. So `control` stays empty.
#include <cstring>

#include "windows/provider.h"

namespace ascend_moe {
namespace {

using cann::Cann;
using cann::kHcclSuccess;

bool CoreCanCopy(const cann::Link& link) {
    return link.protocol == cann::kProtocolHccs || link.protocol == cann::kProtocolSio;
}

cann::ChannelDescription Describe(uint32_t rank, const cann::Link& link) {
    cann::ChannelDescription described;
    memset(&described, 0xff, sizeof(described));  // "default" in every attribute
    described.header = {cann::kChannelVersion, cann::kChannelMagic, sizeof(described), 0};
    described.remote_rank = rank;
    described.protocol = link.protocol;
    described.local = link.source;
    described.remote = link.target;
    described.notifies = 0;
    described.memory_handles = nullptr;
    described.memory_handle_count = 0;
    return described;
}

// HCCL reuses the memory of its answers, so they are copied at once.
Attempt FindLink(cann::HcclComm comm, const std::vector<uint32_t>& layers, uint32_t own,
                 uint32_t rank, cann::ChannelDescription* described) {
    for (uint32_t layer : layers) {
        cann::Link* links = nullptr;
        uint32_t count = 0;
        const auto result = Cann().HcclRankGraphGetLinks(comm, layer, own, rank, &links, &count);
        if (result != kHcclSuccess) return Attempt::Of("HcclRankGraphGetLinks", result);
        for (uint32_t i = 0; i < count; ++i) {
            if (!CoreCanCopy(links[i])) continue;
            *described = Describe(rank, links[i]);
            return Attempt::Found();
        }
    }
    return Attempt::Absent("no HCCS or SIO link to rank " + std::to_string(rank));
}

Attempt Describe(cann::HcclComm comm, const Windows& found,
                 std::vector<cann::ChannelDescription>* described) {
    uint32_t* listed = nullptr;
    uint32_t count = 0;
    const auto result = Cann().HcclRankGraphGetLayers(comm, &listed, &count);
    if (result != kHcclSuccess) return Attempt::Of("HcclRankGraphGetLayers", result);
    const std::vector<uint32_t> layers(listed, listed + count);
    for (uint32_t rank = 0; rank < found.ranks; ++rank) {
        if (rank == found.rank) continue;
        described->emplace_back();
        const Attempt step = FindLink(comm, layers, found.rank, rank, &described->back());
        if (step.outcome != Attempt::kFound) return step;
    }
    return Attempt::Found();
}

}  // namespace

Attempt FromChannels(const std::string& group, aclrtStream, Windows* found) {
    const cann::Symbols& c = Cann();
    const std::string missing =
        cann::Missing(c.HcclCommGetHandleWithName, c.HcclGetRankSize, c.HcclGetRankId,
                      c.HcclGetHcclBuffer, c.HcclRankGraphGetLayers, c.HcclRankGraphGetLinks,
                      c.HcclChannelAcquire, c.HcclChannelGetHcclBuffer);
    if (!missing.empty()) return Attempt::Absent("CANN has no " + missing);
    cann::HcclComm comm = nullptr;
    Attempt step = OpenGroup(group, &comm, found);
    if (step.outcome != Attempt::kFound || found->ranks == 1) return step;
    std::vector<cann::ChannelDescription> described;
    step = Describe(comm, *found, &described);
    if (step.outcome != Attempt::kFound) return step;
    std::vector<cann::Channel> channels(described.size());
    auto result = c.HcclChannelAcquire(comm, cann::kEngineAiv, described.data(),
                                       static_cast<uint32_t>(described.size()), channels.data());
    if (result != kHcclSuccess) return Attempt::Of("HcclChannelAcquire", result);
    for (size_t i = 0; i < channels.size(); ++i) {
        void* address = nullptr;
        uint64_t bytes = 0;
        result = c.HcclChannelGetHcclBuffer(comm, channels[i], &address, &bytes);
        if (result != kHcclSuccess) return Attempt::Of("HcclChannelGetHcclBuffer", result);
        SetWindow(found, described[i].remote_rank, address, bytes);
    }
    return Attempt::Found();
}

}  // namespace ascend_moe
