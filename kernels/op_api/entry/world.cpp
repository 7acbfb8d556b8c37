// See world.h.
#include "world.h"

#include <cstdlib>
#include <cstring>

namespace ascend_moe {
namespace {

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

bool World::OnA2() { return strncmp(aclrtGetSocName(), "Ascend910B", strlen("Ascend910B")) == 0; }

World World::Of(const Attributes& attributes) {
    const int64_t shared_ranks = attributes.shared_expert_rank_num;
    const bool a2 = OnA2();
    return {attributes.ep_world_size,
            attributes.moe_expert_num,
            shared_ranks > 0 ? attributes.shared_expert_num : 0,
            shared_ranks,
            a2,
            PathOf(attributes, a2),
            attributes.first_generation};
}

int64_t MaxBatch(const Attributes& attributes, int64_t batch) {
    return attributes.global_bs > 0 ? attributes.global_bs / attributes.ep_world_size : batch;
}

}  // namespace ascend_moe
