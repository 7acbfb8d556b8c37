// Routing: which (token, slot) of this rank goes where.
//
// Slot k < K is the k-th chosen expert, slot K + s the copy for shared expert s. Pairs of inactive
// tokens do not travel, nor do ids at or above moe_expert_num (zero, copy and const experts,
// computed by combine on the spot).
//
// In hierarchy the slots of a token are its places: its experts in the order in which a server will
// add their rows, which on A2 from CANN 9.1 on is by expert id.
#pragma once

#include <string>
#include <vector>

#include "../../op_api/entry/world.h"
#include "memory.h"

namespace ascend_moe {

struct Pair {
    int32_t token;
    int32_t slot;
    int32_t destination;   // rank
    int32_t local_expert;  // on that rank; 0 on a shared rank
    int32_t scale_row;     // of the smooth scales: shared experts first, then MoE experts
};

class Routing {
 public:
    // `problem` is set when an active id is out of range.
    Routing(const World& world, const Attributes& attributes, const DeviceTensor& expert_ids,
            const DeviceTensor& mask);

    int64_t batch() const { return batch_; }
    int64_t topk() const { return topk_; }
    int32_t id(int64_t token, int64_t slot) const { return ids_[token * topk_ + slot]; }
    // Where the caller's tables have what belongs to the slot.
    int64_t column(int64_t token, int64_t slot) const { return columns_[token * topk_ + slot]; }
    bool active(int64_t token, int64_t slot) const { return active_[token * topk_ + slot] != 0; }
    bool active(int64_t token) const;
    // Ordered by destination, local expert, token, slot.
    std::vector<Pair> Pairs() const;
    // For each (token, k): how many earlier pairs of this rank go to the same expert. The handle of
    // A2.
    std::vector<int32_t> Ordinals() const;

    std::string problem;

 private:
    void OrderByExpert();
    bool travels(int64_t token, int64_t slot) const {
        return active(token, slot) && id(token, slot) < world_.moe_experts;
    }

    const World world_;
    const int64_t rank_;
    const int64_t batch_;
    const int64_t topk_;
    std::vector<int32_t> ids_;
    std::vector<int32_t> columns_;
    std::vector<uint8_t> active_;
};

}  // namespace ascend_moe
