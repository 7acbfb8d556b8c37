// The aclnn functions that torch_npu looks up: two operators, three generations, two phases each.
//
// torch_npu takes the newest generation it finds, in a custom library before CANN's own. Argument
// order and widths are those of op_api in ops-transformer
// (docs/aclnnMoeDistribute{Dispatch,Combine}V{2,3,4}.md): V3 adds elastic_info and the zero, copy
// and const experts, V4 performance_info. Nothing checks that a caller agrees, so the order below
// is the contract, for those who call us and for the functions of CANN that we call (stock.cpp).
#pragma once

#include <cstdint>

#include "calls.h"

#define ACLNN_EXPORT extern "C" __attribute__((visibility("default")))

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
    uint64_t* workspace_bytes, aclOpExecutor** executor);
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
    uint64_t* workspace_bytes, aclOpExecutor** executor);
ACLNN_EXPORT int aclnnMoeDistributeDispatchV2GetWorkspaceSize(
    const aclTensor* x, const aclTensor* expert_ids, const aclTensor* scales,
    const aclTensor* x_active_mask, const aclTensor* expert_scales, const char* group_ep,
    int64_t ep_world_size, int64_t ep_rank_id, int64_t moe_expert_num, const char* group_tp,
    int64_t tp_world_size, int64_t tp_rank_id, int64_t expert_shard_type, int64_t shared_expert_num,
    int64_t shared_expert_rank_num, int64_t quant_mode, int64_t global_bs,
    int64_t expert_token_nums_type, const char* comm_alg, aclTensor* expand_x,
    aclTensor* dynamic_scales, aclTensor* assist_info_for_combine, aclTensor* expert_token_nums,
    aclTensor* ep_recv_counts, aclTensor* tp_recv_counts, aclTensor* expand_scales,
    uint64_t* workspace_bytes, aclOpExecutor** executor);
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
    int64_t const_expert_num, aclTensor* x, uint64_t* workspace_bytes, aclOpExecutor** executor);
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
    int64_t const_expert_num, aclTensor* x, uint64_t* workspace_bytes, aclOpExecutor** executor);
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
    aclOpExecutor** executor);
ACLNN_EXPORT int aclnnMoeDistributeDispatchV2(void* workspace, uint64_t workspace_bytes,
                                              aclOpExecutor* executor, aclrtStream stream);
ACLNN_EXPORT int aclnnMoeDistributeDispatchV3(void* workspace, uint64_t workspace_bytes,
                                              aclOpExecutor* executor, aclrtStream stream);
ACLNN_EXPORT int aclnnMoeDistributeDispatchV4(void* workspace, uint64_t workspace_bytes,
                                              aclOpExecutor* executor, aclrtStream stream);
ACLNN_EXPORT int aclnnMoeDistributeCombineV2(void* workspace, uint64_t workspace_bytes,
                                             aclOpExecutor* executor, aclrtStream stream);
ACLNN_EXPORT int aclnnMoeDistributeCombineV3(void* workspace, uint64_t workspace_bytes,
                                             aclOpExecutor* executor, aclrtStream stream);
ACLNN_EXPORT int aclnnMoeDistributeCombineV4(void* workspace, uint64_t workspace_bytes,
                                             aclOpExecutor* executor, aclrtStream stream);
