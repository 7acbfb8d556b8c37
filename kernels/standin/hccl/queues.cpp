// Of a group that spans servers: on A2 the table of its ranks, and on both products that of the
// queue pairs by which a vector core posts RDMA writes. On A2 these lead to every rank of the other
// servers; on A3 to those with the same number in their server alone, in one super-pod or not, and
// of the others, but for those of the own server, nothing is known (hcomm v9.0.0, src/framework/
// communicator/impl/hccl_communicator_host.cc:5134, BuildAiRmaInfoParam; src/algorithm/impl/
// coll_executor/coll_all_to_all/coll_all_to_all_v_aiv_direct_executor.cc:38).
//
// A rank has two registered buffers, "in" and "out", the two halves of its window. Source of the
// layout: hcomm v9.0.0 (v8.5.0 and v9.1.0-beta.1 have the same), src/pub_inc/transport_pub.h:33-58
// (HcclAiRMAWQ, HcclAiRMACQ), :113 (MemDetails), :355 (TransportDeviceNormalData), src/framework/
// common/src/h2d_dto/transport_h2d.h:15 (HcclAiRMAInfo), src/algorithm/pub_inc/hccl_aiv.h:108, 128
// (HcclAiRMAMemType, HcclAiRMAMemInfo). Who fills it: src/framework/communicator/impl/
// hccl_communicator.cc:2562 (SetDevIbverbsData), 2648 (GenAiRMAInfo), 2817 (H2DAiRMAInfo), 2941
// (GetAIVNormalQPInfo), 2999 (GenIbvAiRMAInfo), and src/platform/resource/transport/host/
// transport_ibverbs.cc:2474.
#include "queues.h"

#include "offer.h"
#include "structure.h"

namespace standin {
namespace {

// Structures and their fields, in bytes.
constexpr size_t kRegion = 24;  // MemDetails: bytes, address, key
constexpr size_t kRankEntry =
    120;  // remote in, remote out, local in, local out, 16 bytes of the pair
constexpr size_t kRankMode = 112;
constexpr size_t kInfo = 64;
constexpr size_t kQueue = 64;
constexpr size_t kCompletion = 56;
constexpr size_t kCompletionMode = 40;
constexpr size_t kPeer = 16;
constexpr uint32_t kRegionsOfPeer = 4;  // local in, remote in, local out, remote out

constexpr int32_t kNormalMode = 0;    // QPMode, src/pub_inc/hccl_common.h:421
constexpr int32_t kHardwareBell = 0;  // DBMode, transport_pub.h
constexpr int32_t kSoftwareBell = 1;

// DEFAULT_OPBASE_MAX_SEND_WR (src/platform/inc/adapter/adapter_hccp.h:40). One queue pair to a peer
// (HCCL_QPS_PER_CONNECTION_DEFAULT, src/pub_inc/externalinput_pub.h:32); the service level as
// HCCL_RDMA_SL is by default (src/platform/common/externalinput.h:39). Elements of 64 bytes are the
// driver's.
constexpr uint32_t kDepth = 32768;
constexpr uint32_t kElement = 64;
constexpr uint32_t kServiceLevel = 4;

enum Buffer : uint32_t { kIn = 0, kOut = 1 };

// Keys as a driver might give them: never 0, others on each side.
uint32_t LocalKey(uint32_t rank, Buffer buffer) { return 0x8100 + 2 * rank + buffer; }
uint32_t RemoteKey(uint32_t rank, Buffer buffer) { return 0x100 + 2 * rank + buffer; }

bool Together(const Communicator& communicator, uint32_t rank) {
    return communicator.place(rank).server == communicator.place(communicator.rank()).server;
}

// In its server.
uint32_t NumberOf(const Communicator& communicator, uint32_t rank) {
    uint32_t number = 0;
    for (uint32_t other = 0; other < rank; ++other)
        number += communicator.place(other).server == communicator.place(rank).server;
    return number;
}

class Tables {
 public:
    Tables(Communicator& communicator, bool hierarchy)
        : communicator_(communicator),
          hierarchy_(hierarchy),
          own_(communicator.rank()),
          buffer_(communicator.window(own_).bytes / 2) {}

    bool ByCard(uint32_t rank) const {
        if (rank == own_) return false;
        if (A2()) return !(hierarchy_ && communicator_.Reaches(rank));
        return !Together(communicator_, rank) && Linked(communicator_, rank);
    }
    bool Known(uint32_t rank) const { return A2() || Linked(communicator_, rank); }

    void SetLocal(Structure* table, size_t at, Buffer buffer, uint32_t key) const {
        const Window window = communicator_.window(own_);
        SetRegion(table, at, reinterpret_cast<uint64_t>(window.device_address) + buffer * buffer_,
                  key);
    }
    // Of a rank behind the card an address that only the card can use.
    void SetRemote(Structure* table, size_t at, uint32_t rank, Buffer buffer) const {
        const bool card = ByCard(rank);
        const void* window =
            card ? communicator_.AddressForCard(rank) : communicator_.window(rank).device_address;
        SetRegion(table, at, reinterpret_cast<uint64_t>(window) + buffer * buffer_,
                  card ? RemoteKey(rank, buffer) : 0);
    }

    uint64_t SendQueues() const {
        Structure queues("send", kQueue * communicator_.size());
        for (uint32_t rank = 0; rank < communicator_.size(); ++rank) {
            if (ByCard(rank)) SetQueue(&queues, kQueue * rank, 0x100 + rank, kHardwareBell);
        }
        return queues.ToDevice();
    }
    uint64_t ReceiveQueues() const {
        Structure queues("receive", kQueue * communicator_.size());
        for (uint32_t rank = 0; rank < communicator_.size(); ++rank) {
            if (ByCard(rank)) SetQueue(&queues, kQueue * rank, 0x900 + rank, kSoftwareBell);
        }
        return queues.ToDevice();
    }
    // The driver polls completions, so of their queues a kernel is told the mode alone
    // (HEAD, src/base_comm/resources/hccp/rdma_service/rs_rdma.c:2043).
    uint64_t Completions() const {
        Structure queues("completions", kCompletion * communicator_.size());
        for (uint32_t rank = 0; rank < communicator_.size(); ++rank) {
            if (ByCard(rank)) queues.Set(kCompletion * rank + kCompletionMode, kSoftwareBell);
        }
        return queues.ToDevice();
    }

    uint64_t Peers() const {
        Structure regions("regions", kRegion * kRegionsOfPeer * communicator_.size());
        for (uint32_t rank = 0; rank < communicator_.size(); ++rank) {
            const size_t at = kRegion * kRegionsOfPeer * rank;
            if (ByCard(rank) || rank == own_) {
                SetLocal(&regions, at, kIn, rank == own_ ? 0 : LocalKey(own_, kIn));
                SetLocal(&regions, at + 2 * kRegion, kOut, rank == own_ ? 0 : LocalKey(own_, kOut));
            }
            if (rank == own_ || !Known(rank)) continue;
            SetRemote(&regions, at + kRegion, rank, kIn);
            SetRemote(&regions, at + 3 * kRegion, rank, kOut);
        }
        const uint64_t first = regions.ToDevice();
        Structure peers("peers", kPeer * communicator_.size());
        for (uint32_t rank = 0; rank < communicator_.size(); ++rank) {
            peers.Set(kPeer * rank, kRegionsOfPeer);
            peers.Set(kPeer * rank + 4, static_cast<uint32_t>(kRegion));
            peers.Set(kPeer * rank + 8, first + kRegion * kRegionsOfPeer * rank);
        }
        return peers.ToDevice();
    }

 private:
    void SetRegion(Structure* table, size_t at, uint64_t address, uint32_t key) const {
        table->Set(at, buffer_);
        table->Set(at + 8, address);
        table->Set(at + 16, key);
    }

    // Its elements, and apart from them its head, its tail and its doorbell.
    void SetQueue(Structure* table, size_t at, uint32_t number, int32_t mode) const {
        constexpr size_t kLine = 64;
        const uint64_t words = DeviceMemory(3 * kLine);
        table->Set(at, number);
        table->Set(at + 8, DeviceMemory(size_t{kDepth} * kElement));
        table->Set(at + 16, kElement);
        table->Set(at + 20, kDepth);
        table->Set(at + 24, words);
        table->Set(at + 32, words + kLine);
        table->Set(at + 40, mode);
        table->Set(at + 48, words + 2 * kLine);
        table->Set(at + 56, kServiceLevel);
    }

    Communicator& communicator_;
    const bool hierarchy_;
    const uint32_t own_;
    const uint64_t buffer_;
};

}  // namespace

bool Linked(const Communicator& communicator, uint32_t rank) {
    return Together(communicator, rank) ||
           NumberOf(communicator, rank) == NumberOf(communicator, communicator.rank());
}

uint64_t MakeRankTable(Communicator& communicator, bool hierarchy, uint64_t* bytes) {
    const Tables tables(communicator, hierarchy);
    Structure table("ranks", kRankEntry * communicator.size());
    for (uint32_t rank = 0; rank < communicator.size(); ++rank) {
        const size_t at = kRankEntry * rank;
        const bool own = rank == communicator.rank();
        table.Set(at + kRankMode, kNormalMode);
        if (!own) {
            tables.SetRemote(&table, at, rank, kIn);
            tables.SetRemote(&table, at + kRegion, rank, kOut);
        }
        if (!own && !tables.ByCard(rank)) continue;
        tables.SetLocal(&table, at + 2 * kRegion, kIn,
                        own ? 0 : LocalKey(communicator.rank(), kIn));
        tables.SetLocal(&table, at + 3 * kRegion, kOut,
                        own ? 0 : LocalKey(communicator.rank(), kOut));
        if (!own) table.Set(at + 4 * kRegion, uint64_t{0x51500000} + rank);  // the driver's handle
    }
    *bytes = table.size();
    return table.ToDevice();
}

uint64_t MakeQueueTables(Communicator& communicator, uint64_t* bytes) {
    const Tables tables(communicator, /*hierarchy=*/true);
    Structure info("queues", kInfo);
    info.Set(0, communicator.rank());
    info.Set(4, communicator.size());
    info.Set(8, uint32_t{1});
    info.Set(12, static_cast<uint32_t>(kQueue));
    info.Set(16, static_cast<uint32_t>(kCompletion));
    info.Set(20, static_cast<uint32_t>(kPeer));
    info.Set(24, tables.SendQueues());
    info.Set(32, tables.Completions());
    info.Set(40, tables.ReceiveQueues());
    info.Set(48, tables.Completions());
    info.Set(56, tables.Peers());
    *bytes = info.size();
    return info.ToDevice();
}

}  // namespace standin
