// See aclnn_entry.h. An older generation is the next one with less to say.
#include "aclnn_entry.h"

using ascend_moe::CombineCall;
using ascend_moe::DispatchCall;

namespace {

std::string Text(const char* text) { return text == nullptr ? "" : text; }

}  // namespace

ACLNN_EXPORT int aclnnMoeDistributeDispatchV4GetWorkspaceSize(
    const aclTensor* x, const aclTensor* expert_ids, const aclTensor* scales,
    const aclTensor* x_active_mask, const aclTensor* expert_scales, const aclTensor* elastic_info,
    const aclTensor* performance_info, const char* group_ep, int64_t ep_world_size,
    int64_t ep_rank_id, int64_t moe_expert_num, const char* group_tp, int64_t tp_world_size,
    int64_t tp_rank_id, int64_t expert_shard_type, int64_t shared_expert_num,
    int64_t shared_expert_rank_num, int64_t quant_mode, int64_t global_bs,
    int64_t expert_token_nums_type, const char* comm_alg, int64_t zero_expert_num,
    int64_t copy_expert_num, int64_t const_expert_num, aclTensor* expand_x,
    aclTensor* dynamic_scales, aclTensor* assist_info_for_combine, aclTensor* expert_token_nums,
    aclTensor* ep_recv_counts, aclTensor* tp_recv_counts, aclTensor* expand_scales,
    uint64_t* workspace_bytes, aclOpExecutor** executor) {
    DispatchCall call;
    call.attributes = {
        Text(group_ep),    ep_world_size,          ep_rank_id,      moe_expert_num,
        Text(group_tp),    tp_world_size,          tp_rank_id,      expert_shard_type,
        shared_expert_num, shared_expert_rank_num, global_bs,       Text(comm_alg),
        zero_expert_num,   copy_expert_num,        const_expert_num};
    call.quant_mode = quant_mode;
    call.expert_token_nums_type = expert_token_nums_type;
    call.x = x;
    call.expert_ids = expert_ids;
    call.scales = scales;
    call.x_active_mask = x_active_mask;
    call.expert_scales = expert_scales;
    call.elastic_info = elastic_info;
    call.performance_info = performance_info;
    call.expand_x = expand_x;
    call.dynamic_scales = dynamic_scales;
    call.assist_info_for_combine = assist_info_for_combine;
    call.expert_token_nums = expert_token_nums;
    call.ep_recv_counts = ep_recv_counts;
    call.tp_recv_counts = tp_recv_counts;
    call.expand_scales = expand_scales;
    return ascend_moe::PhaseOne(call, workspace_bytes, executor);
}

ACLNN_EXPORT int aclnnMoeDistributeDispatchV3GetWorkspaceSize(
    const aclTensor* x, const aclTensor* expert_ids, const aclTensor* scales,
    const aclTensor* x_active_mask, const aclTensor* expert_scales, const aclTensor* elastic_info,
    const char* group_ep, int64_t ep_world_size, int64_t ep_rank_id, int64_t moe_expert_num,
    const char* group_tp, int64_t tp_world_size, int64_t tp_rank_id, int64_t expert_shard_type,
    int64_t shared_expert_num, int64_t shared_expert_rank_num, int64_t quant_mode,
    int64_t global_bs, int64_t expert_token_nums_type, const char* comm_alg,
    int64_t zero_expert_num, int64_t copy_expert_num, int64_t const_expert_num, aclTensor* expand_x,
    aclTensor* dynamic_scales, aclTensor* assist_info_for_combine, aclTensor* expert_token_nums,
    aclTensor* ep_recv_counts, aclTensor* tp_recv_counts, aclTensor* expand_scales,
    uint64_t* workspace_bytes, aclOpExecutor** executor) {
    return aclnnMoeDistributeDispatchV4GetWorkspaceSize(
        x, expert_ids, scales, x_active_mask, expert_scales, elastic_info,
        /*performance_info=*/nullptr, group_ep, ep_world_size, ep_rank_id, moe_expert_num, group_tp,
        tp_world_size, tp_rank_id, expert_shard_type, shared_expert_num, shared_expert_rank_num,
        quant_mode, global_bs, expert_token_nums_type, comm_alg, zero_expert_num, copy_expert_num,
        const_expert_num, expand_x, dynamic_scales, assist_info_for_combine, expert_token_nums,
        ep_recv_counts, tp_recv_counts, expand_scales, workspace_bytes, executor);
}

ACLNN_EXPORT int aclnnMoeDistributeDispatchV2GetWorkspaceSize(
    const aclTensor* x, const aclTensor* expert_ids, const aclTensor* scales,
    const aclTensor* x_active_mask, const aclTensor* expert_scales, const char* group_ep,
    int64_t ep_world_size, int64_t ep_rank_id, int64_t moe_expert_num, const char* group_tp,
    int64_t tp_world_size, int64_t tp_rank_id, int64_t expert_shard_type, int64_t shared_expert_num,
    int64_t shared_expert_rank_num, int64_t quant_mode, int64_t global_bs,
    int64_t expert_token_nums_type, const char* comm_alg, aclTensor* expand_x,
    aclTensor* dynamic_scales, aclTensor* assist_info_for_combine, aclTensor* expert_token_nums,
    aclTensor* ep_recv_counts, aclTensor* tp_recv_counts, aclTensor* expand_scales,
    uint64_t* workspace_bytes, aclOpExecutor** executor) {
    return aclnnMoeDistributeDispatchV3GetWorkspaceSize(
        x, expert_ids, scales, x_active_mask, expert_scales, /*elastic_info=*/nullptr, group_ep,
        ep_world_size, ep_rank_id, moe_expert_num, group_tp, tp_world_size, tp_rank_id,
        expert_shard_type, shared_expert_num, shared_expert_rank_num, quant_mode, global_bs,
        expert_token_nums_type, comm_alg, 0, 0, 0, expand_x, dynamic_scales,
        assist_info_for_combine, expert_token_nums, ep_recv_counts, tp_recv_counts, expand_scales,
        workspace_bytes, executor);
}

ACLNN_EXPORT int aclnnMoeDistributeDispatchV2(void* workspace, uint64_t workspace_bytes,
                                              aclOpExecutor* executor, aclrtStream stream) {
    return ascend_moe::PhaseTwo(DispatchCall::kAclnn, workspace, workspace_bytes, executor, stream);
}
ACLNN_EXPORT int aclnnMoeDistributeDispatchV3(void* workspace, uint64_t workspace_bytes,
                                              aclOpExecutor* executor, aclrtStream stream) {
    return ascend_moe::PhaseTwo(DispatchCall::kAclnn, workspace, workspace_bytes, executor, stream);
}
ACLNN_EXPORT int aclnnMoeDistributeDispatchV4(void* workspace, uint64_t workspace_bytes,
                                              aclOpExecutor* executor, aclrtStream stream) {
    return ascend_moe::PhaseTwo(DispatchCall::kAclnn, workspace, workspace_bytes, executor, stream);
}

ACLNN_EXPORT int aclnnMoeDistributeCombineV4GetWorkspaceSize(
    const aclTensor* expand_x, const aclTensor* expert_ids,
    const aclTensor* assist_info_for_combine, const aclTensor* ep_send_counts,
    const aclTensor* expert_scales, const aclTensor* tp_send_counts, const aclTensor* x_active_mask,
    const aclTensor* activation_scale, const aclTensor* weight_scale, const aclTensor* group_list,
    const aclTensor* expand_scales, const aclTensor* shared_expert_x, const aclTensor* elastic_info,
    const aclTensor* ori_x, const aclTensor* const_expert_alpha_1,
    const aclTensor* const_expert_alpha_2, const aclTensor* const_expert_v,
    const aclTensor* performance_info, const char* group_ep, int64_t ep_world_size,
    int64_t ep_rank_id, int64_t moe_expert_num, const char* group_tp, int64_t tp_world_size,
    int64_t tp_rank_id, int64_t expert_shard_type, int64_t shared_expert_num,
    int64_t shared_expert_rank_num, int64_t global_bs, int64_t out_dtype, int64_t comm_quant_mode,
    int64_t group_list_type, const char* comm_alg, int64_t zero_expert_num, int64_t copy_expert_num,
    int64_t const_expert_num, aclTensor* x, uint64_t* workspace_bytes, aclOpExecutor** executor) {
    CombineCall call;
    call.attributes = {
        Text(group_ep),    ep_world_size,          ep_rank_id,      moe_expert_num,
        Text(group_tp),    tp_world_size,          tp_rank_id,      expert_shard_type,
        shared_expert_num, shared_expert_rank_num, global_bs,       Text(comm_alg),
        zero_expert_num,   copy_expert_num,        const_expert_num};
    call.out_dtype = out_dtype;
    call.comm_quant_mode = comm_quant_mode;
    call.group_list_type = group_list_type;
    call.expand_x = expand_x;
    call.expert_ids = expert_ids;
    call.assist_info_for_combine = assist_info_for_combine;
    call.ep_send_counts = ep_send_counts;
    call.expert_scales = expert_scales;
    call.tp_send_counts = tp_send_counts;
    call.x_active_mask = x_active_mask;
    call.activation_scale = activation_scale;
    call.weight_scale = weight_scale;
    call.group_list = group_list;
    call.expand_scales = expand_scales;
    call.shared_expert_x = shared_expert_x;
    call.elastic_info = elastic_info;
    call.ori_x = ori_x;
    call.const_expert_alpha_1 = const_expert_alpha_1;
    call.const_expert_alpha_2 = const_expert_alpha_2;
    call.const_expert_v = const_expert_v;
    call.performance_info = performance_info;
    call.out = x;
    return ascend_moe::PhaseOne(call, workspace_bytes, executor);
}

ACLNN_EXPORT int aclnnMoeDistributeCombineV3GetWorkspaceSize(
    const aclTensor* expand_x, const aclTensor* expert_ids,
    const aclTensor* assist_info_for_combine, const aclTensor* ep_send_counts,
    const aclTensor* expert_scales, const aclTensor* tp_send_counts, const aclTensor* x_active_mask,
    const aclTensor* activation_scale, const aclTensor* weight_scale, const aclTensor* group_list,
    const aclTensor* expand_scales, const aclTensor* shared_expert_x, const aclTensor* elastic_info,
    const aclTensor* ori_x, const aclTensor* const_expert_alpha_1,
    const aclTensor* const_expert_alpha_2, const aclTensor* const_expert_v, const char* group_ep,
    int64_t ep_world_size, int64_t ep_rank_id, int64_t moe_expert_num, const char* group_tp,
    int64_t tp_world_size, int64_t tp_rank_id, int64_t expert_shard_type, int64_t shared_expert_num,
    int64_t shared_expert_rank_num, int64_t global_bs, int64_t out_dtype, int64_t comm_quant_mode,
    int64_t group_list_type, const char* comm_alg, int64_t zero_expert_num, int64_t copy_expert_num,
    int64_t const_expert_num, aclTensor* x, uint64_t* workspace_bytes, aclOpExecutor** executor) {
    return aclnnMoeDistributeCombineV4GetWorkspaceSize(
        expand_x, expert_ids, assist_info_for_combine, ep_send_counts, expert_scales,
        tp_send_counts, x_active_mask, activation_scale, weight_scale, group_list, expand_scales,
        shared_expert_x, elastic_info, ori_x, const_expert_alpha_1, const_expert_alpha_2,
        const_expert_v, /*performance_info=*/nullptr, group_ep, ep_world_size, ep_rank_id,
        moe_expert_num, group_tp, tp_world_size, tp_rank_id, expert_shard_type, shared_expert_num,
        shared_expert_rank_num, global_bs, out_dtype, comm_quant_mode, group_list_type, comm_alg,
        zero_expert_num, copy_expert_num, const_expert_num, x, workspace_bytes, executor);
}

ACLNN_EXPORT int aclnnMoeDistributeCombineV2GetWorkspaceSize(
    const aclTensor* expand_x, const aclTensor* expert_ids,
    const aclTensor* assist_info_for_combine, const aclTensor* ep_send_counts,
    const aclTensor* expert_scales, const aclTensor* tp_send_counts, const aclTensor* x_active_mask,
    const aclTensor* activation_scale, const aclTensor* weight_scale, const aclTensor* group_list,
    const aclTensor* expand_scales, const aclTensor* shared_expert_x, const char* group_ep,
    int64_t ep_world_size, int64_t ep_rank_id, int64_t moe_expert_num, const char* group_tp,
    int64_t tp_world_size, int64_t tp_rank_id, int64_t expert_shard_type, int64_t shared_expert_num,
    int64_t shared_expert_rank_num, int64_t global_bs, int64_t out_dtype, int64_t comm_quant_mode,
    int64_t group_list_type, const char* comm_alg, aclTensor* x, uint64_t* workspace_bytes,
    aclOpExecutor** executor) {
    return aclnnMoeDistributeCombineV3GetWorkspaceSize(
        expand_x, expert_ids, assist_info_for_combine, ep_send_counts, expert_scales,
        tp_send_counts, x_active_mask, activation_scale, weight_scale, group_list, expand_scales,
        shared_expert_x, nullptr, nullptr, nullptr, nullptr, nullptr, group_ep, ep_world_size,
        ep_rank_id, moe_expert_num, group_tp, tp_world_size, tp_rank_id, expert_shard_type,
        shared_expert_num, shared_expert_rank_num, global_bs, out_dtype, comm_quant_mode,
        group_list_type, comm_alg, 0, 0, 0, x, workspace_bytes, executor);
}

ACLNN_EXPORT int aclnnMoeDistributeCombineV2(void* workspace, uint64_t workspace_bytes,
                                             aclOpExecutor* executor, aclrtStream stream) {
    return ascend_moe::PhaseTwo(CombineCall::kAclnn, workspace, workspace_bytes, executor, stream);
}
ACLNN_EXPORT int aclnnMoeDistributeCombineV3(void* workspace, uint64_t workspace_bytes,
                                             aclOpExecutor* executor, aclrtStream stream) {
    return ascend_moe::PhaseTwo(CombineCall::kAclnn, workspace, workspace_bytes, executor, stream);
}
ACLNN_EXPORT int aclnnMoeDistributeCombineV4(void* workspace, uint64_t workspace_bytes,
                                             aclOpExecutor* executor, aclrtStream stream) {
    return ascend_moe::PhaseTwo(CombineCall::kAclnn, workspace, workspace_bytes, executor, stream);
}
