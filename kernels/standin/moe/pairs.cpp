// See pairs.h.
#include "pairs.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace ascend_moe {

Routing::Routing(const World& world, const Attributes& attributes, const DeviceTensor& expert_ids,
                 const DeviceTensor& mask)
    : world_(world),
      rank_(attributes.ep_rank_id),
      batch_(expert_ids.size(0)),
      topk_(expert_ids.size(1)),
      ids_(expert_ids.Load<int32_t>()),
      columns_(batch_ * topk_),
      active_(batch_ * topk_, 1) {
    for (int64_t i = 0; i < batch_ * topk_; ++i) columns_[i] = static_cast<int32_t>(i % topk_);
    const bool masked = mask.present() && !world.path->mask_ignored;
    const std::vector<uint8_t> flags = masked ? mask.Load<uint8_t>() : std::vector<uint8_t>();
    if (masked && mask.dimensions() == 2) {
        active_ = flags;
    } else if (masked) {
        // A 1-D mask is only counted, as the kernels do: with n true entries the first n tokens are
        // active.
        const int64_t tokens = std::accumulate(flags.begin(), flags.end(), int64_t{0});
        std::fill(active_.begin() + tokens * topk_, active_.end(), 0);
    }
    const int64_t experts = attributes.moe_expert_num + attributes.zero_expert_num +
                            attributes.copy_expert_num + attributes.const_expert_num;
    for (int64_t i = 0; i < batch_ * topk_ && problem.empty(); ++i) {
        if (active_[i] == 0 || (ids_[i] >= 0 && ids_[i] < experts)) continue;
        problem = "expert_ids[" + std::to_string(i / topk_) + ", " + std::to_string(i % topk_) +
                  "]=" + std::to_string(ids_[i]) + ", must be in [0, " + std::to_string(experts) +
                  ")";
    }
    if (world.path->sums_by_expert) OrderByExpert();
}

void Routing::OrderByExpert() {
    const std::vector<int32_t> given = ids_;
    for (int64_t token = 0; token < batch_; ++token) {
        const int32_t* ids = given.data() + token * topk_;
        const auto first = columns_.begin() + token * topk_;
        std::stable_sort(first, first + topk_,
                         [&](int32_t a, int32_t b) { return ids[a] < ids[b]; });
        for (int64_t slot = 0; slot < topk_; ++slot) ids_[token * topk_ + slot] = ids[first[slot]];
    }
}

bool Routing::active(int64_t token) const {
    const auto first = active_.begin() + token * topk_;
    return std::any_of(first, first + topk_, [](uint8_t flag) { return flag != 0; });
}

std::vector<Pair> Routing::Pairs() const {
    std::vector<Pair> pairs;
    for (int32_t token = 0; token < batch_; ++token) {
        for (int32_t slot = 0; slot < topk_; ++slot) {
            if (!travels(token, slot)) continue;
            const int64_t expert = id(token, slot);
            pairs.push_back({token, slot, static_cast<int32_t>(world_.rank_of_expert(expert)),
                             static_cast<int32_t>(expert % world_.local_experts()),
                             static_cast<int32_t>(world_.shared_experts + expert)});
        }
        for (int32_t shared = 0; shared < world_.shared_experts && active(token); ++shared) {
            pairs.push_back({token, static_cast<int32_t>(topk_ + shared),
                             static_cast<int32_t>(world_.rank_of_shared(shared, rank_)), 0,
                             shared});
        }
    }
    std::stable_sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) {
        return std::tie(a.destination, a.local_expert) < std::tie(b.destination, b.local_expert);
    });
    return pairs;
}

std::vector<int32_t> Routing::Ordinals() const {
    std::vector<int32_t> seen(world_.moe_experts, 0);
    std::vector<int32_t> ordinals(batch_ * topk_, 0);
    for (int64_t token = 0; token < batch_; ++token) {
        for (int64_t slot = 0; slot < topk_; ++slot) {
            if (travels(token, slot)) ordinals[token * topk_ + slot] = seen[id(token, slot)]++;
        }
    }
    return ordinals;
}

}  // namespace ascend_moe
