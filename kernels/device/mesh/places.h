// The handle: for every own pair its place in the list for the rank of its expert, which is where
// the row comes back. One core makes it, while the others publish.
#pragma once

#include "peers.h"

namespace ascend_moe {

class PlaceTable {
 public:
    __aicore__ inline PlaceTable(TPipe* pipe, const Parameters& p, const DispatchTensors& t,
                                 uint32_t active)
        : p_(p), t_(t), pairs_(active * p.topk) {
        pipe->InitBuffer(ids_, 4 * (pairs_ == 0 ? 1 : pairs_));
        pipe->InitBuffer(mask_, pairs_ == 0 ? 1 : pairs_);
        pipe->InitBuffer(next_, 4 * p.moe_experts);
    }

    __aicore__ inline void Run() {
        if (pairs_ == 0) return;
        LocalTensor<uint32_t> ids = ids_.Get<uint32_t>(), next = next_.Get<uint32_t>();
        Load(ids, At<uint32_t>(t_.expert_ids), pairs_);
        if (p_.mask == Mask::kPairs) Load(mask_.Get<uint8_t>(), At<uint8_t>(t_.mask), pairs_);
        for (uint32_t expert = 0; expert < p_.moe_experts; ++expert) next.SetValue(expert, 0);
        MOE_SYNC(MTE2_S);
        for (uint32_t i = 0; i < pairs_; ++i) {
            if (!Sent(i)) ids.SetValue(i, p_.moe_experts);
            uint32_t expert = ids.GetValue(i);
            if (expert < p_.moe_experts) next.SetValue(expert, next.GetValue(expert) + 1);
        }
        // The counts turn into the experts' first places, a list for every rank.
        uint32_t first = 0;
        for (uint32_t expert = 0; expert < p_.moe_experts; ++expert) {
            if (expert % p_.local_experts == 0) first = 0;
            uint32_t count = next.GetValue(expert);
            next.SetValue(expert, first);
            first += count;
        }
        for (uint32_t i = 0; i < pairs_; ++i) {
            uint32_t expert = ids.GetValue(i), place = 0;
            if (expert < p_.moe_experts) {
                place = next.GetValue(expert);
                next.SetValue(expert, place + 1);
            }
            ids.SetValue(i, place);
        }
        MOE_SYNC(S_MTE3);
        Store(At<uint32_t>(t_.assist_info), ids, pairs_);
    }

 private:
    __aicore__ inline bool Sent(uint32_t i) const {
        return (p_.mask != Mask::kPairs || mask_.Get<uint8_t>().GetValue(i) != 0) &&
               ids_.Get<uint32_t>().GetValue(i) < p_.moe_experts;
    }

    const Parameters& p_;
    const DispatchTensors& t_;
    uint32_t pairs_;
    Buffer ids_, mask_, next_;
};

}  // namespace ascend_moe
