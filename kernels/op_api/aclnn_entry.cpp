// The aclnn functions that torch_npu looks up: two operators, three generations, two phases each.
//
// torch_npu takes the newest generation it finds, in a custom library before CANN's own. Argument
// order and widths are those of op_api in ops-transformer
// (docs/aclnnMoeDistribute{Dispatch,Combine}V{2,3,4}.md): V3 adds elastic_info and the zero, copy
// and const experts, V4 performance_info. Nothing checks that a caller agrees, so the order below
// is the contract.
#include <memory>

#include "arguments.h"
#include "check.h"
#include "host/operators.h"
#include "standin.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

struct aclOpExecutor;

namespace ascend_moe {
namespace {

// What phase one leaves for phase two; torch_npu only carries the pointer.
struct Prepared {
    const char* name;
    standin::Task run;
};

std::string Text(const char* text) { return text == nullptr ? "" : text; }

// With TASK_QUEUE_ENABLE=2 phase one runs on torch_npu's queue thread, which raises without the
// text of a failure. There the failure is left to the stream, whose errors keep their text.
bool FailureIsLeftToStream() {
    static const bool left = standin::IntegerOption("TASK_QUEUE_ENABLE", 1) == 2;
    return left;
}

standin::Task Failing(int status) {
    return [status, text = standin::TakeRecentError()] {
        return standin::Fail(status, "%s", text.c_str());
    };
}

template <typename Arguments>
int Prepare(const char* name, const Arguments& arguments, uint64_t* workspace_bytes,
            aclOpExecutor** executor) {
    *workspace_bytes = 0;
    *executor = nullptr;
    standin::Task run;
    int status = Check(arguments);
    if (status == ACL_SUCCESS) status = Plan(arguments, &run);
    if (status != ACL_SUCCESS && !FailureIsLeftToStream()) return status;
    if (status != ACL_SUCCESS) run = Failing(status);
    *executor = reinterpret_cast<aclOpExecutor*>(new Prepared{name, std::move(run)});
    return ACL_SUCCESS;
}

int Start(aclOpExecutor* executor, aclrtStream stream) {
    if (executor == nullptr)
        return standin::Fail(161001, "phase two without a successful phase one");
    const std::unique_ptr<Prepared> prepared(reinterpret_cast<Prepared*>(executor));
    return standin::Launch(stream, prepared->name, std::move(prepared->run));
}

}  // namespace
}  // namespace ascend_moe

using ascend_moe::CombineArguments;
using ascend_moe::DispatchArguments;
using ascend_moe::Tensor;
using ascend_moe::Text;

// ---- dispatch
// -------------------------------------------------------------------------------------------------------

EXPORT int aclnnMoeDistributeDispatchV4GetWorkspaceSize(
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
    DispatchArguments call;
    call.attributes = {
        Text(group_ep),    ep_world_size,          ep_rank_id,      moe_expert_num,
        Text(group_tp),    tp_world_size,          tp_rank_id,      expert_shard_type,
        shared_expert_num, shared_expert_rank_num, global_bs,       Text(comm_alg),
        zero_expert_num,   copy_expert_num,        const_expert_num};
    call.quant_mode = quant_mode;
    call.expert_token_nums_type = expert_token_nums_type;
    call.x = Tensor::Of(x);
    call.expert_ids = Tensor::Of(expert_ids);
    call.scales = Tensor::Of(scales);
    call.x_active_mask = Tensor::Of(x_active_mask);
    call.expert_scales = Tensor::Of(expert_scales);
    call.elastic_info = Tensor::Of(elastic_info);
    call.performance_info = Tensor::Of(performance_info);
    call.expand_x = Tensor::Of(expand_x);
    call.dynamic_scales = Tensor::Of(dynamic_scales);
    call.assist_info_for_combine = Tensor::Of(assist_info_for_combine);
    call.expert_token_nums = Tensor::Of(expert_token_nums);
    call.ep_recv_counts = Tensor::Of(ep_recv_counts);
    call.tp_recv_counts = Tensor::Of(tp_recv_counts);
    call.expand_scales = Tensor::Of(expand_scales);
    return ascend_moe::Prepare("MoeDistributeDispatch", call, workspace_bytes, executor);
}

EXPORT int aclnnMoeDistributeDispatchV3GetWorkspaceSize(
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

EXPORT int aclnnMoeDistributeDispatchV2GetWorkspaceSize(
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

EXPORT int aclnnMoeDistributeDispatchV2(void*, uint64_t, aclOpExecutor* executor,
                                        aclrtStream stream) {
    return ascend_moe::Start(executor, stream);
}
EXPORT int aclnnMoeDistributeDispatchV3(void*, uint64_t, aclOpExecutor* executor,
                                        aclrtStream stream) {
    return ascend_moe::Start(executor, stream);
}
EXPORT int aclnnMoeDistributeDispatchV4(void*, uint64_t, aclOpExecutor* executor,
                                        aclrtStream stream) {
    return ascend_moe::Start(executor, stream);
}

// ---- combine
// --------------------------------------------------------------------------------------------------------

EXPORT int aclnnMoeDistributeCombineV4GetWorkspaceSize(
    const aclTensor* expand_x, const aclTensor* expert_ids,
    const aclTensor* assist_info_for_combine, const aclTensor* ep_send_counts,
    const aclTensor* expert_scales, const aclTensor* tp_send_counts, const aclTensor* x_active_mask,
    const aclTensor* /*activation_scale*/, const aclTensor* /*weight_scale*/,
    const aclTensor* /*group_list*/, const aclTensor* expand_scales,
    const aclTensor* shared_expert_x, const aclTensor* elastic_info, const aclTensor* ori_x,
    const aclTensor* const_expert_alpha_1, const aclTensor* const_expert_alpha_2,
    const aclTensor* const_expert_v, const aclTensor* performance_info, const char* group_ep,
    int64_t ep_world_size, int64_t ep_rank_id, int64_t moe_expert_num, const char* group_tp,
    int64_t tp_world_size, int64_t tp_rank_id, int64_t expert_shard_type, int64_t shared_expert_num,
    int64_t shared_expert_rank_num, int64_t global_bs, int64_t /*out_dtype*/,
    int64_t comm_quant_mode, int64_t /*group_list_type*/, const char* comm_alg,
    int64_t zero_expert_num, int64_t copy_expert_num, int64_t const_expert_num, aclTensor* x,
    uint64_t* workspace_bytes, aclOpExecutor** executor) {
    CombineArguments call;
    call.attributes = {
        Text(group_ep),    ep_world_size,          ep_rank_id,      moe_expert_num,
        Text(group_tp),    tp_world_size,          tp_rank_id,      expert_shard_type,
        shared_expert_num, shared_expert_rank_num, global_bs,       Text(comm_alg),
        zero_expert_num,   copy_expert_num,        const_expert_num};
    call.comm_quant_mode = comm_quant_mode;
    call.expand_x = Tensor::Of(expand_x);
    call.expert_ids = Tensor::Of(expert_ids);
    call.assist_info_for_combine = Tensor::Of(assist_info_for_combine);
    call.ep_send_counts = Tensor::Of(ep_send_counts);
    call.expert_scales = Tensor::Of(expert_scales);
    call.tp_send_counts = Tensor::Of(tp_send_counts);
    call.x_active_mask = Tensor::Of(x_active_mask);
    call.expand_scales = Tensor::Of(expand_scales);
    call.shared_expert_x = Tensor::Of(shared_expert_x);
    call.elastic_info = Tensor::Of(elastic_info);
    call.ori_x = Tensor::Of(ori_x);
    call.const_expert_alpha_1 = Tensor::Of(const_expert_alpha_1);
    call.const_expert_alpha_2 = Tensor::Of(const_expert_alpha_2);
    call.const_expert_v = Tensor::Of(const_expert_v);
    call.performance_info = Tensor::Of(performance_info);
    call.out = Tensor::Of(x);
    return ascend_moe::Prepare("MoeDistributeCombine", call, workspace_bytes, executor);
}

EXPORT int aclnnMoeDistributeCombineV3GetWorkspaceSize(
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

EXPORT int aclnnMoeDistributeCombineV2GetWorkspaceSize(
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

EXPORT int aclnnMoeDistributeCombineV2(void*, uint64_t, aclOpExecutor* executor,
                                       aclrtStream stream) {
    return ascend_moe::Start(executor, stream);
}
EXPORT int aclnnMoeDistributeCombineV3(void*, uint64_t, aclOpExecutor* executor,
                                       aclrtStream stream) {
    return ascend_moe::Start(executor, stream);
}
EXPORT int aclnnMoeDistributeCombineV4(void*, uint64_t, aclOpExecutor* executor,
                                       aclrtStream stream) {
    return ascend_moe::Start(executor, stream);
}
