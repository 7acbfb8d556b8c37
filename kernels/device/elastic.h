// A call on a group that goes on without some of its ranks. The context says who is left, on which
// all of them have agreed in their meeting; elastic_info has to say the same, word for word. So its
// words need no other check, and none of them becomes an address.
//
// From here on a call is the ordinary one of a smaller group: Window counts in new numbers and
// knows the old ones (addresses, records), and the parameters are those of who is left.
#pragma once

#include "window.h"

namespace ascend_moe {

class ElasticCheck {
 public:
    // Behind ReadState. `info`: the tensor, 0 if there is none, which is for a whole group.
    __aicore__ inline void Run(TPipe* pipe, Window& window, uint64_t info) {
        if (info == 0 && !window.scaled) return;
        if (info == 0) return window.Fail(kOtherRanks, window.rank);
        pipe->InitBuffer(said_, 4 * kChunk);
        pipe->InitBuffer(agreed_, 4 * kChunk);
        LocalTensor<uint32_t> said = said_.Get<uint32_t>(), agreed = agreed_.Get<uint32_t>();
        const uint32_t words = ElasticWords(window.whole);
        for (uint32_t first = 0; first < words; first += kChunk) {
            const uint32_t count = words - first < kChunk ? words - first : kChunk;
            Load(said, At<uint32_t>(info + 4 * first), count);
            Load(agreed, At<uint32_t>(window.ElasticAddress() + 4 * first), count);
            MOE_SYNC(MTE2_S);
            if (first == 0 && said.GetValue(kElasticScaled) == 0 && !window.scaled) return;
            for (uint32_t i = 0; i < count; ++i) {
                if (said.GetValue(i) == agreed.GetValue(i)) continue;
                return window.Fail(kOtherRanks, window.rank, first + i, said.GetValue(i));
            }
            MOE_SYNC(S_MTE2);
        }
    }

 private:
    static constexpr uint32_t kChunk = 256;  // words

    Buffer said_, agreed_;
};

__aicore__ inline Parameters OfThoseLeft(const Window& window, const Parameters& whole) {
    Parameters p = whole;
    if (window.scaled) {
        p.shared_ranks = window.Elastic(kElasticSharedRanks);
        p.moe_experts = window.Elastic(kElasticMoeExperts);
    }
    return p;
}

}  // namespace ascend_moe
