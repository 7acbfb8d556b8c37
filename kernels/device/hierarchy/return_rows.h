// Combine, the experts' side: every row of expand_x, and its weight, to the relay of the rank it
// came from.
#pragma once

#include "servers.h"

namespace ascend_moe {

// The GM operands of combine over several servers, in the order of the kernel's arguments.
struct HierarchyCombineTensors {
    uint64_t expand_x, ep_send_counts, expand_scales, mask;
    uint64_t out, performance_info;
};

class ServerReturner {
 public:
    __aicore__ inline ServerReturner(TPipe* pipe, const Window& window, const Servers& servers,
                                     const Parameters& p, const HierarchyCombineTensors& t)
        : window_(window),
          servers_(servers),
          p_(p),
          t_(t),
          slots_(ServerSlotsOffset(window.bytes)) {
        pipe->InitBuffer(ends_, 4 * p.moe_experts);
        pipe->InitBuffer(places_, 8 * kBatch);
        pipe->InitBuffer(weights_, 4 * kBatch);
        pipe->InitBuffer(weight_blocks_, kBlockBytes * kBatch);
        pipe->InitBuffer(rows_, 4, 2 * p.hidden);
    }

    __aicore__ inline void Run() {
        const uint32_t slots = p_.moe_experts;  // one for each (local expert, source)
        LocalTensor<uint32_t> ends = ends_.Get<uint32_t>();
        Load(ends, At<uint32_t>(t_.ep_send_counts), slots);
        MOE_SYNC(MTE2_S);
        uint32_t rows =
            Smaller(ends.GetValue(slots - 1), Smaller(p_.capacity, window_.ranks * MateRows(p_)));
        Share share = ShareOf(rows, window_.core, window_.cores);
        uint32_t slot = 0;
        for (uint32_t first = share.begin; first < share.end; first += kBatch)
            SendBatch(first, Smaller(kBatch, share.end - first), &slot);
    }

 private:
    static constexpr uint32_t kBatch = 256;  // rows whose places and weights are loaded together

    __aicore__ inline void SendBatch(uint32_t first, uint32_t count, uint32_t* slot) {
        LocalTensor<uint32_t> places = places_.Get<uint32_t>(), weights = weights_.Get<uint32_t>(),
                              blocks = weight_blocks_.Get<uint32_t>(), ends = ends_.Get<uint32_t>();
        MOE_SYNC(S_MTE2);
        Load(places, At<uint32_t>(t_.ep_send_counts + 4ull * (p_.moe_experts + 2 * first)),
             2 * count);
        Load(weights, At<uint32_t>(t_.expand_scales + 4ull * first), count);
        MOE_SYNC(MTE2_S);
        MOE_SYNC(MTE3_S);
        for (uint32_t i = 0; i < count; ++i) {
            blocks.SetValue(i * kBlockWords, weights.GetValue(i));
            for (uint32_t word = 1; word < kBlockWords; ++word)
                blocks.SetValue(i * kBlockWords + word, 0);
        }
        MOE_SYNC(S_MTE3);
        for (uint32_t i = 0; i < count; ++i) {
            while (*slot + 1 < p_.moe_experts && ends.GetValue(*slot) <= first + i) ++*slot;
            uint32_t source = *slot % window_.ranks, token = places.GetValue(2 * i),
                     place = places.GetValue(2 * i + 1);
            if (token >= p_.max_batch || place >= p_.topk) continue;
            const uint64_t to = window_.Data(
                servers_.RelayOf(source),
                slots_ + ServerSlot(p_, source / servers_.topology.per_server, token, place));
            LocalTensor<uint8_t> row = rows_.AllocTensor<uint8_t>();
            Load(row, At<uint8_t>(t_.expand_x + 2ull * (first + i) * p_.hidden), 2 * p_.hidden);
            rows_.EnQue(row);
            row = rows_.DeQue<uint8_t>();
            Store(At<uint8_t>(to), row, 2 * p_.hidden);
            Store(At<uint32_t>(to + 2ull * p_.hidden), blocks[i * kBlockWords], kBlockWords);
            rows_.FreeTensor(row);
        }
    }

    const Window& window_;
    const Servers& servers_;
    const Parameters& p_;
    const HierarchyCombineTensors& t_;
    uint64_t slots_;
    Buffer ends_, places_, weights_, weight_blocks_;
    AscendC::TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> rows_;
};

}  // namespace ascend_moe
