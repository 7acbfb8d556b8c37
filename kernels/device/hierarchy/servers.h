// A group in several servers as one kernel sees it: mates by window, the rail by card.
// docs/kernels-hierarchy.md, sections 1 and 6.
#pragma once

// clang-format off
#include "../rdma_post.h"  // first: abi.h takes its integer types from kernel_operator.h
#include "../waited.h"
#include "abi.h"
// clang-format on

namespace ascend_moe {

class Servers {
 public:
    Topology topology;
    bool by_expert;
    uint64_t output;  // window

    __aicore__ inline void Init(GM_ADDR context, Window& window) {
        auto words = At<uint32_t>(reinterpret_cast<uint64_t>(context));
        topology.per_server =
            words.GetValue(__builtin_offsetof(HierarchyContext, ranks_per_server) / 4);
        by_expert = words.GetValue(__builtin_offsetof(HierarchyContext, sums_by_expert) / 4) != 0;
        output = At<uint64_t>(reinterpret_cast<uint64_t>(context))
                     .GetValue(__builtin_offsetof(HierarchyContext, output) / 8);
        queues_ = At<uint64_t>(reinterpret_cast<uint64_t>(context))
                      .GetValue(__builtin_offsetof(HierarchyContext, queues) / 8);
        topology.servers = window.ranks / topology.per_server;
        topology.server = window.rank / topology.per_server;
        topology.number = window.rank % topology.per_server;
        window.ranks_per_server = topology.per_server;
    }

    __aicore__ inline uint32_t Mate(uint32_t number) const {
        return topology.server * topology.per_server + number;
    }
    __aicore__ inline bool IsMate(uint32_t rank) const {
        return rank / topology.per_server == topology.server;
    }
    // The rank with this number in another server: each other's relays.
    __aicore__ inline uint32_t Rail(uint32_t server) const {
        return server * topology.per_server + topology.number;
    }
    // The mate that relays the tokens of `rank`.
    __aicore__ inline uint32_t RelayOf(uint32_t rank) const {
        return Mate(rank % topology.per_server);
    }

    // The queue pair to the rail's rank in `server` belongs to one core in every step of every
    // launch: that of server s to core s mod cores.
    __aicore__ inline QueuePair Queue(RdmaPost& post, uint32_t server) const {
        return QueueTo(post, Rail(server));
    }
    __aicore__ inline QueuePair QueueTo(RdmaPost& post, uint32_t rank) const {
        return post.Open(queues_, rank, 0);
    }

    // The block {nonce, epoch, mark} at `offset` + own rank to this core's share of the mates.
    __aicore__ inline void TellMates(FlagName what, const Window& window,
                                     const LocalTensor<uint32_t>& block, uint64_t offset,
                                     uint32_t epoch, uint32_t mark) const {
        if (PostDropped(what)) return;
        block.SetValue(0, window.nonce);
        block.SetValue(1, epoch);
        block.SetValue(kTagWords, mark);
        for (uint32_t i = kTagWords + 1; i < kBlockWords; ++i) block.SetValue(i, 0);
        MOE_SYNC(S_MTE3);
        for (uint32_t i = window.core; i < topology.per_server; i += window.cores) {
            uint32_t mate = Mate((topology.number + 1 + i) % topology.per_server);
            Store(At<uint32_t>(window.Control(mate, offset + window.rank * kBlockBytes)), block,
                  kBlockWords);
        }
        MOE_SYNC(MTE3_S);
    }

    // A tag alone to those of the rail whose queue pairs are this core's.
    __aicore__ inline void TellRail(FlagName what, Window& window, RdmaPost& post, TagSource source,
                                    uint64_t offset, uint32_t epoch) const {
        for (uint32_t server = window.core; server < topology.servers; server += window.cores) {
            if (server == topology.server || window.failed) continue;
            QueuePair pair = Queue(post, server);
            post.PostTag(what, window, pair, TagSourceOffset(source, 0, server),
                         offset + window.rank * kBlockBytes, epoch);
        }
    }

    // What performance_info is told comes from core 0, which looks at all that any core waits for.
    __aicore__ inline static bool Measured(const Window& window, const Parameters& p) {
        return window.core == 0 && ascend_moe::Measured(p);
    }
    __aicore__ inline void UntilMates(Waited& waited) const {
        for (uint32_t number = 0; number < topology.per_server; ++number)
            waited.Until(Mate(number), Mate(number));
    }
    __aicore__ inline void UntilRail(Waited& waited) const {
        for (uint32_t server = 0; server < topology.servers; ++server) {
            if (server != topology.server) waited.Until(Rail(server), Rail(server));
        }
    }

    // Waits for the blocks of this core's share of the mates and of the rail.
    __aicore__ inline void WaitForShare(FlagName what, Window& window, uint64_t offset,
                                        uint32_t epoch) const {
        WaitForMates(what, window, offset, epoch);
        WaitForRail(what, window, offset, epoch);
    }
    __aicore__ inline void WaitForMates(FlagName what, Window& window, uint64_t offset,
                                        uint32_t epoch) const {
        for (uint32_t i = window.core; i < topology.per_server; i += window.cores) {
            uint32_t mate = Mate((topology.number + 1 + i) % topology.per_server);
            window.Wait(what, offset + mate * kBlockBytes, 1, 1, mate, epoch);
        }
    }
    __aicore__ inline void WaitForRail(FlagName what, Window& window, uint64_t offset,
                                       uint32_t epoch) const {
        for (uint32_t server = window.core; server < topology.servers; server += window.cores) {
            if (server != topology.server)
                window.Wait(what, offset + Rail(server) * kBlockBytes, 1, 1, Rail(server), epoch);
        }
    }

 private:
    uint64_t queues_;
};

}  // namespace ascend_moe
