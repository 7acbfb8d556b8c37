// The rank graph and the channels of HCCL 9 (hccl_rank_graph.h, hccl_channel.h). The graph is that
// of an A3 server: the two dies of a package have an SIO link, others HCCS, and everybody RoCE as
// well, over which no core can copy.
#include <mutex>
#include <set>

#include "offer.h"

namespace {

using standin::Field;
using standin::SetField;

constexpr int32_t kHccs = 0;
constexpr int32_t kRoce = 1;
constexpr int32_t kSio = 3;
constexpr int32_t kAiv = 4;

constexpr size_t kEndpointBytes = 160;
constexpr size_t kEndpointDevice = 48;
// CommLink
constexpr size_t kLinkBytes = 464;
constexpr size_t kLinkSource = 16;
constexpr size_t kLinkTarget = kLinkSource + kEndpointBytes;
constexpr size_t kLinkProtocol = kLinkTarget + kEndpointBytes;
// HcclChannelDesc
constexpr size_t kDescriptionBytes = 496;
constexpr size_t kRemoteRank = 16;
constexpr size_t kProtocol = 20;
constexpr size_t kLocalEndpoint = 24;
constexpr size_t kRemoteEndpoint = kLocalEndpoint + kEndpointBytes;
constexpr size_t kHandleCount = 360;

constexpr uint64_t kChannelTag = 0xc4a00000;

struct Links {
    char bytes[2][kLinkBytes];
};

void MakeEndpoint(char* endpoint, uint32_t rank, int32_t protocol) {
    memset(endpoint, 0xff, kEndpointBytes);
    SetField(endpoint, 0, protocol);
    SetField<int32_t>(endpoint, 4, 2);  // COMM_ADDR_TYPE_ID
    SetField<uint32_t>(endpoint, 8, rank);
    SetField<int32_t>(endpoint, 44, 0);  // ENDPOINT_LOC_TYPE_DEVICE
    SetField<uint32_t>(endpoint, kEndpointDevice, rank);
}

Links LinksBetween(uint32_t source, uint32_t target) {
    Links links = {};
    const int32_t protocols[2] = {kRoce, (source ^ 1) == target ? kSio : kHccs};
    for (int i = 0; i < 2; ++i) {
        char* link = links.bytes[i];
        SetField<uint32_t>(link, 0, 1);
        SetField<uint32_t>(link, 4, 0x0f0e0f0f);
        SetField<uint32_t>(link, 8, kLinkBytes);
        MakeEndpoint(link + kLinkSource, source, protocols[i]);
        MakeEndpoint(link + kLinkTarget, target, protocols[i]);
        SetField(link, kLinkProtocol, protocols[i]);
    }
    return links;
}

// Null when HCCL would open this channel, else what is wrong.
const char* Problem(const standin::Communicator& communicator, const char* described) {
    if (Field<uint32_t>(described, 0) != 1 || Field<uint32_t>(described, 4) != 0x0f0f0f0f ||
        Field<uint32_t>(described, 8) != kDescriptionBytes)
        return "the description was not initialised";
    const uint32_t rank = Field<uint32_t>(described, kRemoteRank);
    if (rank >= communicator.size() || rank == communicator.rank()) return "no such remote rank";
    if (Field<uint32_t>(described, kHandleCount) != 0) return "memory handles are not supported";
    const Links links = LinksBetween(communicator.rank(), rank);
    for (const char* link : {links.bytes[0], links.bytes[1]}) {
        if (Field<int32_t>(described, kProtocol) == Field<int32_t>(link, kLinkProtocol) &&
            memcmp(described + kLocalEndpoint, link + kLinkSource, kEndpointBytes) == 0 &&
            memcmp(described + kRemoteEndpoint, link + kLinkTarget, kEndpointBytes) == 0)
            return Field<int32_t>(link, kLinkProtocol) == kRoce ? "AIV cannot use RoCE" : nullptr;
    }
    return "there is no such link";
}

struct Opened {
    std::mutex mutex;
    std::set<std::pair<std::string, uint64_t>> channels;
};

Opened& OpenedChannels() {
    static Opened* opened = new Opened();
    return *opened;
}

}  // namespace

extern "C" {

HcclResult HcclRankGraphGetLayers(HcclComm comm, uint32_t** layers, uint32_t* count) {
    static thread_local uint32_t list[2];
    if (standin::OfHandle(comm) == nullptr) return standin::Wrong(__func__, "no communicator");
    list[0] = 0;
    list[1] = 1;
    *layers = list;
    *count = 2;
    return HCCL_SUCCESS;
}

// Layer 0 is empty, so that a caller has to look into the next. The answer lives until the next
// call, as with HCCL.
HcclResult HcclRankGraphGetLinks(HcclComm comm, uint32_t layer, uint32_t source, uint32_t target,
                                 void** links, uint32_t* count) {
    static thread_local Links answer;
    const auto communicator = standin::OfHandle(comm);
    if (communicator == nullptr || source != communicator->rank() ||
        target >= communicator->size() || layer > 1)
        return standin::Wrong(__func__, "no communicator, rank or layer");
    answer = LinksBetween(source, target);
    *links = &answer;
    *count = layer == 1 ? 2 : 0;
    return HCCL_SUCCESS;
}

HcclResult HcclChannelAcquire(HcclComm comm, int32_t engine, const void* described, uint32_t count,
                              uint64_t* channels) {
    const auto communicator = standin::OfHandle(comm);
    if (communicator == nullptr || count == 0)
        return standin::Wrong(__func__, "no communicator, or no channel");
    if (engine != kAiv) return HCCL_E_NOT_SUPPORT;
    for (uint32_t i = 0; i < count; ++i) {
        const char* one = static_cast<const char*>(described) + i * kDescriptionBytes;
        if (const char* problem = Problem(*communicator, one))
            return standin::Wrong(__func__, problem);
        channels[i] = kChannelTag + Field<uint32_t>(one, kRemoteRank);
    }
    const HcclResult met = standin::MeetToBuildLinks(*communicator, __func__);
    if (met != HCCL_SUCCESS) return met;
    Opened& opened = OpenedChannels();
    std::lock_guard<std::mutex> lock(opened.mutex);
    for (uint32_t i = 0; i < count; ++i) opened.channels.emplace(communicator->name(), channels[i]);
    return HCCL_SUCCESS;
}

HcclResult HcclChannelGetHcclBuffer(HcclComm comm, uint64_t channel, void** address,
                                    uint64_t* bytes) {
    const auto communicator = standin::OfHandle(comm);
    if (communicator == nullptr) return standin::Wrong(__func__, "no communicator");
    Opened& opened = OpenedChannels();
    std::lock_guard<std::mutex> lock(opened.mutex);
    if (opened.channels.count({communicator->name(), channel}) == 0)
        return standin::Wrong(__func__, "no such channel");
    const standin::Window window =
        communicator->window(static_cast<uint32_t>(channel - kChannelTag));
    *address = window.device_address;
    *bytes = window.bytes;
    return HCCL_SUCCESS;
}

}  // extern "C"
