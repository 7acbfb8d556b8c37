// The first generation of the two operators, which torch_npu calls for npu_moe_distribute_dispatch
// and npu_moe_distribute_combine: the exchange of the later ones, with another handle and fewer
// parameters.
//
// Only CANN's own operators have it, so a group whose later calls are ours must not use both.
// Argument order: op-plugin op_plugin/ops/opapi/MoeDistribute{Dispatch,Combine}KernelOpApi.cpp.
#include "../../op_api/entry/aclnn_entry.h"

using ascend_moe::CombineCall;
using ascend_moe::DispatchCall;

namespace {

std::string Text(const char* text) { return text == nullptr ? "" : text; }

}  // namespace

ACLNN_EXPORT int aclnnMoeDistributeDispatchGetWorkspaceSize(
    const aclTensor* x, const aclTensor* expert_ids, const aclTensor* scales,
    const aclTensor* x_active_mask, const aclTensor* expert_scales, const char* group_ep,
    int64_t ep_world_size, int64_t ep_rank_id, int64_t moe_expert_num, const char* group_tp,
    int64_t tp_world_size, int64_t tp_rank_id, int64_t expert_shard_type, int64_t shared_expert_num,
    int64_t shared_expert_rank_num, int64_t quant_mode, int64_t global_bs,
    int64_t expert_token_nums_type, aclTensor* expand_x, aclTensor* dynamic_scales,
    aclTensor* expand_idx, aclTensor* expert_token_nums, aclTensor* ep_recv_counts,
    aclTensor* tp_recv_counts, aclTensor* expand_scales, uint64_t* workspace_bytes,
    aclOpExecutor** executor) {
    DispatchCall call;
    call.attributes = {Text(group_ep),
                       ep_world_size,
                       ep_rank_id,
                       moe_expert_num,
                       Text(group_tp),
                       tp_world_size,
                       tp_rank_id,
                       expert_shard_type,
                       shared_expert_num,
                       shared_expert_rank_num,
                       global_bs,
                       "",
                       0,
                       0,
                       0,
                       /*first_generation=*/true};
    call.quant_mode = quant_mode;
    call.expert_token_nums_type = expert_token_nums_type;
    call.x = x;
    call.expert_ids = expert_ids;
    call.scales = scales;
    call.x_active_mask = x_active_mask;
    call.expert_scales = expert_scales;
    call.expand_x = expand_x;
    call.dynamic_scales = dynamic_scales;
    call.assist_info_for_combine = expand_idx;
    call.expert_token_nums = expert_token_nums;
    call.ep_recv_counts = ep_recv_counts;
    call.tp_recv_counts = tp_recv_counts;
    call.expand_scales = expand_scales;
    return ascend_moe::PhaseOne(call, workspace_bytes, executor);
}
ACLNN_EXPORT int aclnnMoeDistributeDispatch(void* workspace, uint64_t workspace_bytes,
                                            aclOpExecutor* executor, aclrtStream stream) {
    return ascend_moe::PhaseTwo(DispatchCall::kAclnn, workspace, workspace_bytes, executor, stream);
}

ACLNN_EXPORT int aclnnMoeDistributeCombineGetWorkspaceSize(
    const aclTensor* expand_x, const aclTensor* expert_ids, const aclTensor* expand_idx,
    const aclTensor* ep_send_counts, const aclTensor* expert_scales,
    const aclTensor* tp_send_counts, const aclTensor* x_active_mask,
    const aclTensor* activation_scale, const aclTensor* weight_scale, const aclTensor* group_list,
    const aclTensor* expand_scales, const char* group_ep, int64_t ep_world_size, int64_t ep_rank_id,
    int64_t moe_expert_num, const char* group_tp, int64_t tp_world_size, int64_t tp_rank_id,
    int64_t expert_shard_type, int64_t shared_expert_num, int64_t shared_expert_rank_num,
    int64_t global_bs, int64_t out_dtype, int64_t comm_quant_mode, int64_t group_list_type,
    aclTensor* x, uint64_t* workspace_bytes, aclOpExecutor** executor) {
    CombineCall call;
    call.attributes = {Text(group_ep),
                       ep_world_size,
                       ep_rank_id,
                       moe_expert_num,
                       Text(group_tp),
                       tp_world_size,
                       tp_rank_id,
                       expert_shard_type,
                       shared_expert_num,
                       shared_expert_rank_num,
                       global_bs,
                       "",
                       0,
                       0,
                       0,
                       /*first_generation=*/true};
    call.out_dtype = out_dtype;
    call.comm_quant_mode = comm_quant_mode;
    call.group_list_type = group_list_type;
    call.expand_x = expand_x;
    call.expert_ids = expert_ids;
    call.assist_info_for_combine = expand_idx;
    call.ep_send_counts = ep_send_counts;
    call.expert_scales = expert_scales;
    call.tp_send_counts = tp_send_counts;
    call.x_active_mask = x_active_mask;
    call.activation_scale = activation_scale;
    call.weight_scale = weight_scale;
    call.group_list = group_list;
    call.expand_scales = expand_scales;
    call.out = x;
    return ascend_moe::PhaseOne(call, workspace_bytes, executor);
}
ACLNN_EXPORT int aclnnMoeDistributeCombine(void* workspace, uint64_t workspace_bytes,
                                           aclOpExecutor* executor, aclrtStream stream) {
    return ascend_moe::PhaseTwo(CombineCall::kAclnn, workspace, workspace_bytes, executor, stream);
}
