// Who is where in an EP group, and how much memory that needs.
//
// Ranks below shared_expert_rank_num hold shared experts, the others local_experts() MoE experts
// each, in ascending order. The default (shared_expert_num, shared_expert_rank_num) = (1, 0) means
// no shared expert.
#pragma once

#include <cstdint>

#include "arguments.h"
#include "moe_limits.h"

namespace ascend_moe {

struct World {
    int64_t ranks;
    int64_t moe_experts;
    int64_t shared_experts;  // the effective number
    int64_t shared_ranks;
    bool a2;  // Atlas A2; otherwise A3
    const limits::PathLimits* path;
    bool first_generation;

    static World Of(const Attributes& attributes);

    // Hierarchy: neighbours form servers, and a server adds the rows of a token before they leave
    // it.
    bool hierarchy() const { return path->ranks_per_server > 0; }
    // The handle says for each (token, k) how many earlier ones of its source go to the same
    // expert. Otherwise it says of each row where it came from.
    bool ordinals() const { return !hierarchy() && (a2 || first_generation); }
    int64_t servers() const { return ranks / path->ranks_per_server; }
    int64_t server_of(int64_t rank) const { return rank / path->ranks_per_server; }

    int64_t local_experts() const { return moe_experts / (ranks - shared_ranks); }
    // With elastic_info a rank may become one of the other kind: the larger number of both.
    int64_t experts_on(int64_t rank, bool elastic = false) const {
        return rank < shared_ranks && !elastic ? 1 : local_experts();
    }
    int64_t replicas() const { return shared_experts == 0 ? 0 : shared_ranks / shared_experts; }
    int64_t rank_of_expert(int64_t expert) const { return shared_ranks + expert / local_experts(); }
    int64_t rank_of_shared(int64_t shared, int64_t source) const {
        return shared * replicas() + source % replicas();
    }
};

// Largest batch of any rank.
int64_t MaxBatch(const Attributes& attributes, int64_t batch);

}  // namespace ascend_moe
