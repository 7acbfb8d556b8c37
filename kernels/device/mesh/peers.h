// All ranks of a full mesh over several servers as one kernel sees them: mates by window, everybody
// else by card. docs/kernels-mesh.md.
#pragma once

// clang-format off
#include "../hierarchy/servers.h"  // first: abi.h takes its integer types from kernel_operator.h
#include "../publish.h"
#include "abi.h"
// clang-format on

namespace ascend_moe {

class MeshPeers {
 public:
    // After the state has been read. Launches of both operators are counted together.
    __aicore__ inline MeshPeers(GM_ADDR context, Window& window, const Parameters& p, LastOp op)
        : layout(p), window_(window), mark_(MarkOf(p) + op) {
        servers_.Init(context, window);
        window.epoch = window.dispatch_epoch + window.combine_epoch + 1;
        parity = window.epoch & 1;
        area = MeshHalf(window.bytes, parity);
    }

    const CountsLayout layout;
    uint32_t parity;
    uint64_t area;  // the half of this launch, of both windows

    __aicore__ inline uint32_t PerServer() const { return servers_.topology.per_server; }
    __aicore__ inline uint32_t ServerOf(uint32_t rank) const { return rank / PerServer(); }
    __aicore__ inline bool IsMate(uint32_t peer) const { return servers_.IsMate(peer); }
    __aicore__ inline uint64_t Output(uint64_t offset) const { return servers_.output + offset; }
    // Every core posts to its share of the ranks, the same for all posts of a launch.
    __aicore__ inline QueuePair Queue(RdmaPost& post, uint32_t peer) const {
        return servers_.QueueTo(post, peer);
    }

    // Tagged blocks without counts, for Announce.
    __aicore__ inline void Blank(const LocalTensor<uint32_t>& counts, uint32_t rows) const {
        for (uint32_t i = 0; i < layout.blocks * kBlockWords; ++i) {
            uint32_t word = i % kBlockWords;
            counts.SetValue(i, word == 0 ? window_.nonce : word == 1 ? window_.epoch : 0);
        }
        counts.SetValue(CountsLayout::Word(CountsLayout::kTotal), rows);
        Sign(counts);
    }
    __aicore__ inline void Sign(const LocalTensor<uint32_t>& counts) const {
        counts.SetValue(CountsLayout::Word(CountsLayout::kMark), mark_);
    }

    // The counts to a rank of another server, behind all that this core has posted to it, and the
    // tag that proves them.
    __aicore__ inline void Announce(RdmaPost& post, QueuePair& pair,
                                    const LocalTensor<uint32_t>& counts) const {
        const uint64_t from = layout.Offset(parity, pair.peer);
        Store(At<uint32_t>(Output(from)), counts, layout.blocks * kBlockWords);
        post.Post(window_, pair, from, layout.Offset(parity, window_.rank),
                  layout.blocks * kBlockBytes);
        post.PostTag(MOE_FLAG("arrival"), window_, pair, MeshTagOffset(parity, pair.peer),
                     MeshTagOffset(0, window_.rank), window_.epoch);
    }
    // The same to a mate, behind the copies of this core and, after a MOE_SYNC_ALL, of all.
    __aicore__ inline void AnnounceToMate(uint32_t mate,
                                          const LocalTensor<uint32_t>& counts) const {
        if (!PostDropped(MOE_FLAG("counts")))
            Store(At<uint32_t>(window_.Control(mate, layout.Offset(parity, window_.rank))), counts,
                  layout.blocks * kBlockWords);
    }

    // The cores share the waiting; a SyncAll behind it, and every core may read what has come.
    // performance_info: a rank is waited for until its counts are there; a tag follows at once.
    __aicore__ inline void WaitForShare(TPipe* pipe, const Parameters& p,
                                        uint64_t performance_info) const {
        Share peers = ShareOf(window_.ranks, window_.core, window_.cores);
        Waited waited(window_, Measured(p));
        waited.Watch(pipe, MOE_FLAG("counts"), layout.Offset(parity, 0), layout.blocks, peers,
                     window_.epoch);
        waited.UntilAll();
        waited.MergeInto(performance_info, p.waits);
        for (uint32_t peer = peers.begin; peer < peers.end && !window_.failed; ++peer) {
            if (!IsMate(peer))
                window_.Wait(MOE_FLAG("arrival"), MeshTagOffset(0, peer), 1, 1, peer,
                             window_.epoch);
            LocalTensor<uint32_t> blocks =
                window_.Wait(MOE_FLAG("counts"), layout.Offset(parity, peer), layout.blocks,
                             layout.blocks, peer, window_.epoch);
            if (!window_.failed)
                window_.Compare(blocks, CountsLayout::Word(CountsLayout::kMark), mark_, peer);
            MOE_SYNC(S_MTE2);
        }
    }

 private:
    Window& window_;
    Servers servers_;
    uint32_t mark_;
};

}  // namespace ascend_moe
