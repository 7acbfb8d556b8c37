// The limits of the two operators, by contract, product and path. Made by scripts/generate from
// ascend_moe/contract/limits.py; change them there. Host code includes <cstdint> before.
#pragma once

namespace ascend_moe::limits {

// What one path of one product allows. 0 in an upper bound: the contract sets none.
struct PathLimits {
    int64_t ep_min, ep_max, ep_multiple;  // the hull of the legal ep_world_size values
    int64_t batch_max;
    int64_t hidden_min, hidden_max, hidden_multiple;
    int64_t topk_max;
    int64_t moe_experts_max;
    int64_t local_experts_max;
    int64_t local_times_ep_max;
    int64_t tp_max;
    int64_t ranks_per_server;  // 0: full mesh
    bool sums_by_expert;       // a server adds the rows of a token by expert id, not by k
    bool mask_ignored;         // x_active_mask is looked at for its shape alone
    bool performance_info;
    bool shared_ranks, zero_experts, copy_experts, const_experts;
};

constexpr int64_t kNameBytesMax = 127;
constexpr int64_t kSharedExpertsMax = 4;
constexpr int64_t kExpertsTotalBelow = 2147483647;
constexpr int64_t kAssistWordsPerRow = 128;
constexpr int64_t kRanksPerServer = 8;
constexpr int64_t kPackedHiddenMax = 5120;
constexpr int64_t kWindowMbDefault = 200;
constexpr int64_t kWindowMbMin = 2;

constexpr PathLimits kCann82A2FullMesh = {
    16,     // ep_min
    64,     // ep_max
    1,      // ep_multiple
    256,    // batch_max
    32,     // hidden_min
    7168,   // hidden_max
    32,     // hidden_multiple
    16,     // topk_max
    1024,   // moe_experts_max
    24,     // local_experts_max
    0,      // local_times_ep_max
    1,      // tp_max
    0,      // ranks_per_server
    false,  // sums_by_expert
    false,  // mask_ignored
    false,  // performance_info
    false,  // shared_ranks
    false,  // zero_experts
    false,  // copy_experts
    false,  // const_experts
};

constexpr PathLimits kCann82A2Hierarchy = {
    16,     // ep_min
    64,     // ep_max
    1,      // ep_multiple
    256,    // batch_max
    32,     // hidden_min
    7168,   // hidden_max
    32,     // hidden_multiple
    16,     // topk_max
    1024,   // moe_experts_max
    0,      // local_experts_max
    0,      // local_times_ep_max
    1,      // tp_max
    8,      // ranks_per_server
    false,  // sums_by_expert
    true,   // mask_ignored
    false,  // performance_info
    false,  // shared_ranks
    false,  // zero_experts
    false,  // copy_experts
    false,  // const_experts
};

constexpr PathLimits kCann82A3FullMesh = {
    2,      // ep_min
    768,    // ep_max
    1,      // ep_multiple
    512,    // batch_max
    1024,   // hidden_min
    8192,   // hidden_max
    1,      // hidden_multiple
    16,     // topk_max
    1024,   // moe_experts_max
    0,      // local_experts_max
    1280,   // local_times_ep_max
    2,      // tp_max
    0,      // ranks_per_server
    false,  // sums_by_expert
    false,  // mask_ignored
    false,  // performance_info
    true,   // shared_ranks
    false,  // zero_experts
    false,  // copy_experts
    false,  // const_experts
};

constexpr PathLimits kCann91A2FullMesh = {
    2,      // ep_min
    256,    // ep_max
    1,      // ep_multiple
    256,    // batch_max
    32,     // hidden_min
    7168,   // hidden_max
    32,     // hidden_multiple
    16,     // topk_max
    1024,   // moe_experts_max
    0,      // local_experts_max
    0,      // local_times_ep_max
    1,      // tp_max
    0,      // ranks_per_server
    false,  // sums_by_expert
    false,  // mask_ignored
    true,   // performance_info
    false,  // shared_ranks
    true,   // zero_experts
    true,   // copy_experts
    false,  // const_experts
};

constexpr PathLimits kCann91A2Hierarchy = {
    16,     // ep_min
    64,     // ep_max
    1,      // ep_multiple
    512,    // batch_max
    32,     // hidden_min
    10240,  // hidden_max
    32,     // hidden_multiple
    16,     // topk_max
    1024,   // moe_experts_max
    0,      // local_experts_max
    0,      // local_times_ep_max
    1,      // tp_max
    8,      // ranks_per_server
    true,   // sums_by_expert
    true,   // mask_ignored
    true,   // performance_info
    false,  // shared_ranks
    false,  // zero_experts
    false,  // copy_experts
    false,  // const_experts
};

constexpr PathLimits kCann91A3FullMesh = {
    2,      // ep_min
    768,    // ep_max
    1,      // ep_multiple
    512,    // batch_max
    1024,   // hidden_min
    8192,   // hidden_max
    1,      // hidden_multiple
    16,     // topk_max
    1024,   // moe_experts_max
    0,      // local_experts_max
    2048,   // local_times_ep_max
    1,      // tp_max
    0,      // ranks_per_server
    false,  // sums_by_expert
    false,  // mask_ignored
    true,   // performance_info
    true,   // shared_ranks
    true,   // zero_experts
    true,   // copy_experts
    true,   // const_experts
};

constexpr PathLimits kCann91A3FullMeshV2 = {
    2,      // ep_min
    768,    // ep_max
    1,      // ep_multiple
    256,    // batch_max
    1024,   // hidden_min
    8192,   // hidden_max
    1,      // hidden_multiple
    12,     // topk_max
    1024,   // moe_experts_max
    0,      // local_experts_max
    2048,   // local_times_ep_max
    1,      // tp_max
    0,      // ranks_per_server
    false,  // sums_by_expert
    false,  // mask_ignored
    true,   // performance_info
    true,   // shared_ranks
    true,   // zero_experts
    true,   // copy_experts
    true,   // const_experts
};

constexpr PathLimits kCann91A3Hierarchy = {
    16,     // ep_min
    256,    // ep_max
    16,     // ep_multiple
    256,    // batch_max
    1024,   // hidden_min
    7168,   // hidden_max
    32,     // hidden_multiple
    16,     // topk_max
    512,    // moe_experts_max
    0,      // local_experts_max
    0,      // local_times_ep_max
    1,      // tp_max
    16,     // ranks_per_server
    false,  // sums_by_expert
    false,  // mask_ignored
    false,  // performance_info
    false,  // shared_ranks
    false,  // zero_experts
    false,  // copy_experts
    false,  // const_experts
};

// The largest of every contract, product and path: for static sizes.
constexpr int64_t kEpMax = 768;
constexpr int64_t kBatchMax = 512;
constexpr int64_t kHiddenMax = 10240;
constexpr int64_t kTopkMax = 16;
constexpr int64_t kMoeExpertsMax = 1024;

}  // namespace ascend_moe::limits
