// A call whose tensors have been read.
#pragma once

#include "calls.h"
#include "tensor.h"

namespace ascend_moe {

struct DispatchArguments {
    Attributes attributes;
    int64_t quant_mode = 0;
    int64_t expert_token_nums_type = 1;
    Tensor x, expert_ids, scales, x_active_mask, expert_scales, elastic_info, performance_info;
    Tensor expand_x, dynamic_scales, assist_info_for_combine, expert_token_nums, ep_recv_counts,
        tp_recv_counts, expand_scales;  // outputs

    static DispatchArguments Of(const DispatchCall& call);
};

struct CombineArguments {
    Attributes attributes;
    int64_t comm_quant_mode = 0;
    Tensor expand_x, expert_ids, assist_info_for_combine, ep_send_counts, expert_scales,
        tp_send_counts, x_active_mask, expand_scales, shared_expert_x, elastic_info, ori_x,
        const_expert_alpha_1, const_expert_alpha_2, const_expert_v, performance_info;
    Tensor out;

    static CombineArguments Of(const CombineCall& call);
};

}  // namespace ascend_moe
