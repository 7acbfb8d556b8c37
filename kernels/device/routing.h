// Which pairs of this rank are active, and which rank and expert they belong to.
#pragma once

#include "window.h"

namespace ascend_moe {

// Destinations of pairs. Shared ranks come first; shared expert s has shared_ranks / shared_experts
// replicas, and source r uses replica r modulo that number.
struct Routing {
    uint32_t local_experts, shared_experts, shared_ranks, rank;

    __aicore__ inline explicit Routing(const Parameters& p, uint32_t own_rank)
        : local_experts(p.local_experts),
          shared_experts(p.shared_experts),
          shared_ranks(p.shared_ranks),
          rank(own_rank) {}

    __aicore__ inline uint32_t Replicas() const { return shared_ranks / shared_experts; }
    __aicore__ inline uint32_t RankOfExpert(uint32_t expert) const {
        return shared_ranks + expert / local_experts;
    }
    __aicore__ inline uint32_t RankOfShared(uint32_t shared) const {
        return shared * Replicas() + rank % Replicas();
    }
    // The experts a rank hosts, as it counts them.
    __aicore__ inline uint32_t ExpertsOn(uint32_t peer) const {
        return peer < shared_ranks ? 1 : local_experts;
    }
    // Whether this rank's tokens go to that shared rank.
    __aicore__ inline bool Serves(uint32_t shared_rank) const {
        return shared_rank % Replicas() == rank % Replicas();
    }
};

// The number of active tokens under a token mask: the kernels count its true entries and take that
// many tokens from the start.
__aicore__ inline uint32_t CountActive(TPipe* pipe, const Parameters& p, GM_ADDR mask) {
    if (p.mask != Mask::kTokens) return p.batch;
    Buffer buffer;
    pipe->InitBuffer(buffer, p.batch);
    LocalTensor<uint8_t> flags = buffer.Get<uint8_t>();
    Load(flags, At<uint8_t>(reinterpret_cast<uint64_t>(mask)), p.batch);
    MOE_SYNC(MTE2_S);
    uint32_t active = 0;
    for (uint32_t i = 0; i < p.batch; ++i) active += flags.GetValue(i) != 0;
    return active;
}

}  // namespace ascend_moe
