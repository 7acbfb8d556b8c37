// See world.h.
#include "world.h"

#include <cstring>

namespace ascend_moe {
namespace {

constexpr int64_t kTripleBytes = 44;  // what the kernels append to a row

int64_t AlignTo(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

}  // namespace

World World::Of(const Attributes& attributes) {
    const int64_t shared_ranks = attributes.shared_expert_rank_num;
    const bool a2 = strncmp(aclrtGetSocName(), "Ascend910B", strlen("Ascend910B")) == 0;
    return {attributes.ep_world_size, attributes.moe_expert_num,
            shared_ranks > 0 ? attributes.shared_expert_num : 0, shared_ranks, a2};
}

int64_t MaxBatch(const Attributes& attributes, int64_t batch) {
    return attributes.global_bs > 0 ? attributes.global_bs / attributes.ep_world_size : batch;
}

int64_t RequiredWindowBytes(const World& world, int64_t max_batch, int64_t hidden, int64_t topk,
                            bool spread) {
    const int64_t token_bytes = 2 * hidden;
    const int64_t row_bytes = AlignTo(token_bytes, 32) + kTripleBytes;
    const int64_t slot_bytes = spread ? (row_bytes + 479) / 480 * 512 : AlignTo(row_bytes, 512);
    const int64_t rows_out = world.local_experts() * max_batch * world.ranks;
    const int64_t rows_home = (topk + world.shared_experts) * max_batch;
    return 2 * (rows_out * slot_bytes + rows_home * AlignTo(token_bytes, 512));
}

}  // namespace ascend_moe
