// The arguments of the two operators, whichever aclnn generation they came through.
//
// Names are those of the torch_npu operators. A parameter that a generation does not have keeps its
// default.
#pragma once

#include <string>

#include "tensor.h"

namespace ascend_moe {

// What dispatch and combine have in common.
struct Attributes {
    std::string group_ep;
    int64_t ep_world_size = 0;
    int64_t ep_rank_id = 0;
    int64_t moe_expert_num = 0;
    std::string group_tp;
    int64_t tp_world_size = 0;
    int64_t tp_rank_id = 0;
    int64_t expert_shard_type = 0;
    int64_t shared_expert_num = 1;
    int64_t shared_expert_rank_num = 0;
    int64_t global_bs = 0;
    std::string comm_alg;
    int64_t zero_expert_num = 0;
    int64_t copy_expert_num = 0;
    int64_t const_expert_num = 0;
};

struct DispatchArguments {
    Attributes attributes;
    int64_t quant_mode = 0;
    int64_t expert_token_nums_type = 1;
    Tensor x, expert_ids, scales, x_active_mask, expert_scales, elastic_info, performance_info;
    Tensor expand_x, dynamic_scales, assist_info_for_combine, expert_token_nums, ep_recv_counts,
        tp_recv_counts,
        expand_scales;  // outputs
};

struct CombineArguments {
    Attributes attributes;
    int64_t comm_quant_mode = 0;
    Tensor expand_x, expert_ids, assist_info_for_combine, ep_send_counts, expert_scales,
        tp_send_counts, x_active_mask, expand_scales, shared_expert_x, elastic_info, ori_x,
        const_expert_alpha_1, const_expert_alpha_2, const_expert_v, performance_info;
    Tensor out;
};

}  // namespace ascend_moe
