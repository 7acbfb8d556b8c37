// See world.h.
#include "world.h"

#include <cstdlib>
#include <cstring>

namespace ascend_moe {
namespace {

int64_t AlignTo(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

bool Selected(const char* variable, const char* value) {
    const char* chosen = getenv(variable);
    return chosen != nullptr && strcmp(chosen, value) == 0;
}

// The operators of CANN up to 8.2, which know no comm_alg.
bool FirstContract() {
    if (Selected("ASCEND_MOE_CONTRACT", "cann-8.2")) return true;
    if (Selected("ASCEND_MOE_CONTRACT", "cann-9.1")) return false;
    const char* cann = getenv("ASCEND_MOE_VNPU_CANN");
    return cann != nullptr && atof(cann) > 0 && atof(cann) <= 8.2;
}

// As ascend_moe/contract/path.py explains it.
const limits::PathLimits* PathOf(const Attributes& attributes, bool a2) {
    const bool first = FirstContract();
    const bool asked = attributes.comm_alg == "hierarchy" && !first;
    if (!a2) return asked ? &limits::kCann91A3Hierarchy : &limits::kCann91A3FullMesh;
    const bool by_variables = (attributes.comm_alg.empty() || attributes.comm_alg == "0") &&
                              Selected("HCCL_INTRA_PCIE_ENABLE", "1") &&
                              Selected("HCCL_INTRA_ROCE_ENABLE", "0");
    const bool one_server = !first && attributes.ep_world_size <= limits::kRanksPerServer;
    if (one_server || !(asked || by_variables)) return &limits::kCann91A2FullMesh;
    return first ? &limits::kCann82A2Hierarchy : &limits::kCann91A2Hierarchy;
}

}  // namespace

World World::Of(const Attributes& attributes) {
    const int64_t shared_ranks = attributes.shared_expert_rank_num;
    const bool a2 = strncmp(aclrtGetSocName(), "Ascend910B", strlen("Ascend910B")) == 0;
    return {attributes.ep_world_size,
            attributes.moe_expert_num,
            shared_ranks > 0 ? attributes.shared_expert_num : 0,
            shared_ranks,
            a2,
            PathOf(attributes, a2)};
}

int64_t MaxBatch(const Attributes& attributes, int64_t batch) {
    return attributes.global_bs > 0 ? attributes.global_bs / attributes.ep_world_size : batch;
}

int64_t RequiredWindowBytes(const World& world, int64_t max_batch, int64_t hidden, int64_t topk,
                            bool spread) {
    const int64_t token_bytes = 2 * hidden;
    if (world.hierarchy()) {
        const int64_t words = 3 * (topk + 7) / 8 * 8;
        return world.moe_experts * max_batch * (token_bytes + 4 * words + 64) + (404 << 20);
    }
    const int64_t row_bytes = AlignTo(token_bytes, 32) + 64;
    const int64_t slot_bytes = spread ? (row_bytes + 479) / 480 * 512 : AlignTo(row_bytes, 512);
    const int64_t rows_out = world.local_experts() * max_batch * world.ranks;
    const int64_t rows_home = (topk + world.shared_experts) * max_batch;
    return 2 * (rows_out * slot_bytes + rows_home * AlignTo(token_bytes, 512));
}

}  // namespace ascend_moe
