// Combine, the expert's side: every row of expand_x back to the rank it came from, to a mate by
// copy, to others as one message.
#pragma once

#include "../return_rows.h"
#include "peers.h"

namespace ascend_moe {

class MeshReturner {
 public:
    __aicore__ inline MeshReturner(TPipe* pipe, Window& window, const MeshPeers& peers,
                                   const Parameters& p, const CombineTensors& t)
        : window_(window), peers_(peers), p_(p), t_(t) {
        window.InitBuffers(pipe, 1);
        post_.InitBuffers(pipe);
        pipe->InitBuffer(ends_, 4 * p.moe_experts);
        pipe->InitBuffer(taken_, 4 * window.ranks);
        pipe->InitBuffer(counts_, peers.layout.blocks * kBlockBytes);
        pipe->InitBuffer(rows_, 4, 2 * p.hidden);
    }

    // This core's share of the rows, each to its place in the list that its source has sent: behind
    // the rows of that source for experts before.
    __aicore__ inline void Run() {
        LocalTensor<uint32_t> taken = taken_.Get<uint32_t>();
        Load(ends_.Get<uint32_t>(), At<uint32_t>(t_.ep_send_counts), p_.moe_experts);
        MOE_SYNC(MTE2_S);
        for (uint32_t source = 0; source < window_.ranks; ++source) taken.SetValue(source, 0);
        const uint32_t last = End(p_.moe_experts - 1);
        Share share = ShareOf(last < p_.capacity ? last : p_.capacity, window_.core, window_.cores);
        for (uint32_t slot = 0; slot < p_.moe_experts && Begin(slot) < share.end; ++slot) {
            const uint32_t source = slot % window_.ranks, before = taken.GetValue(source);
            uint32_t row = Begin(slot) > share.begin ? Begin(slot) : share.begin;
            for (; row < End(slot) && row < share.end; ++row)
                Return(source, before + row - Begin(slot), row);
            taken.SetValue(source, before + End(slot) - Begin(slot));
        }
    }

    // After all cores have returned their rows.
    __aicore__ inline void Announce() {
        LocalTensor<uint32_t> counts = counts_.Get<uint32_t>();
        for (uint32_t i = window_.core; i < window_.ranks && !window_.failed; i += window_.cores) {
            const uint32_t peer = (window_.rank + 1 + i) % window_.ranks, rows = RowsOf(peer);
            peers_.Blank(counts, rows);
            MOE_SYNC(S_MTE3);
            if (peers_.IsMate(peer)) {
                peers_.AnnounceToMate(peer, counts);
            } else {
                Send(peer, rows, counts);
            }
            MOE_SYNC(MTE3_S);
        }
    }

 private:
    __aicore__ inline uint32_t End(uint32_t slot) const {
        return ends_.Get<uint32_t>().GetValue(slot);
    }
    __aicore__ inline uint32_t Begin(uint32_t slot) const { return slot == 0 ? 0 : End(slot - 1); }
    __aicore__ inline uint32_t RowsOf(uint32_t source) const {
        uint32_t rows = 0;
        for (uint32_t slot = source; slot < p_.moe_experts; slot += window_.ranks)
            rows += End(slot) - Begin(slot);
        return rows < ListRows(p_) ? rows : ListRows(p_);
    }

    __aicore__ inline void Return(uint32_t source, uint32_t place, uint32_t row) {
        if (place >= ListRows(p_)) return;
        const uint64_t rows =
            peers_.IsMate(source)
                ? window_.Data(source, peers_.area + MeshReturnedOffset(p_, window_.rank))
                : peers_.Output(peers_.area + MeshReturnedOffset(p_, source));
        LocalTensor<uint8_t> buffer = rows_.AllocTensor<uint8_t>();
        Load(buffer, At<uint8_t>(t_.expand_x + 2ull * row * p_.hidden), 2 * p_.hidden);
        rows_.EnQue(buffer);
        buffer = rows_.DeQue<uint8_t>();
        Store(At<uint8_t>(rows + 2ull * place * p_.hidden), buffer, 2 * p_.hidden);
        rows_.FreeTensor(buffer);
    }

    __aicore__ inline void Send(uint32_t peer, uint32_t rows, const LocalTensor<uint32_t>& counts) {
        QueuePair pair = peers_.Queue(post_, peer);
        if (rows > 0)
            post_.Post(window_, pair, peers_.area + MeshReturnedOffset(p_, peer),
                       peers_.area + MeshReturnedOffset(p_, window_.rank), 2 * rows * p_.hidden);
        peers_.Announce(post_, pair, counts);
    }

    Window& window_;
    const MeshPeers& peers_;
    const Parameters& p_;
    const CombineTensors& t_;
    RdmaPost post_;
    Buffer ends_, taken_, counts_;
    AscendC::TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> rows_;
};

}  // namespace ascend_moe
