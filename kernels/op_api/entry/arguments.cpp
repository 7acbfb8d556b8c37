// See arguments.h.
#include "arguments.h"

namespace ascend_moe {

DispatchArguments DispatchArguments::Of(const DispatchCall& call) {
    DispatchArguments read;
    read.attributes = call.attributes;
    read.quant_mode = call.quant_mode;
    read.expert_token_nums_type = call.expert_token_nums_type;
    read.x = Tensor::Of(call.x);
    read.expert_ids = Tensor::Of(call.expert_ids);
    read.scales = Tensor::Of(call.scales);
    read.x_active_mask = Tensor::Of(call.x_active_mask);
    read.expert_scales = Tensor::Of(call.expert_scales);
    read.elastic_info = Tensor::Of(call.elastic_info);
    read.performance_info = Tensor::Of(call.performance_info);
    read.expand_x = Tensor::Of(call.expand_x);
    read.dynamic_scales = Tensor::Of(call.dynamic_scales);
    read.assist_info_for_combine = Tensor::Of(call.assist_info_for_combine);
    read.expert_token_nums = Tensor::Of(call.expert_token_nums);
    read.ep_recv_counts = Tensor::Of(call.ep_recv_counts);
    read.tp_recv_counts = Tensor::Of(call.tp_recv_counts);
    read.expand_scales = Tensor::Of(call.expand_scales);
    return read;
}

CombineArguments CombineArguments::Of(const CombineCall& call) {
    CombineArguments read;
    read.attributes = call.attributes;
    read.comm_quant_mode = call.comm_quant_mode;
    read.expand_x = Tensor::Of(call.expand_x);
    read.expert_ids = Tensor::Of(call.expert_ids);
    read.assist_info_for_combine = Tensor::Of(call.assist_info_for_combine);
    read.ep_send_counts = Tensor::Of(call.ep_send_counts);
    read.expert_scales = Tensor::Of(call.expert_scales);
    read.tp_send_counts = Tensor::Of(call.tp_send_counts);
    read.x_active_mask = Tensor::Of(call.x_active_mask);
    read.expand_scales = Tensor::Of(call.expand_scales);
    read.shared_expert_x = Tensor::Of(call.shared_expert_x);
    read.elastic_info = Tensor::Of(call.elastic_info);
    read.ori_x = Tensor::Of(call.ori_x);
    read.const_expert_alpha_1 = Tensor::Of(call.const_expert_alpha_1);
    read.const_expert_alpha_2 = Tensor::Of(call.const_expert_alpha_2);
    read.const_expert_v = Tensor::Of(call.const_expert_v);
    read.performance_info = Tensor::Of(call.performance_info);
    read.out = Tensor::Of(call.out);
    return read;
}

}  // namespace ascend_moe
