// The two operators as torch_npu calls them: pointers and numbers in the form of the newest
// generation.
//
// The generations of the aclnn functions differ in what they can say (aclnn_entry.cpp). A parameter
// that a generation does not have keeps its default here.
#pragma once

#include <cstdint>
#include <string>

#include "acl/acl.h"

struct aclTensor;
struct aclOpExecutor;

namespace ascend_moe {

// What dispatch and combine have in common. Names are those of the torch_npu operators.
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
    bool first_generation = false;  // its handle is an ordinal per (token, k), on A3 too
};

struct DispatchCall {
    static constexpr const char* kOperator = "npu_moe_distribute_dispatch_v2";
    static constexpr const char* kAclnn = "aclnnMoeDistributeDispatch";

    Attributes attributes;
    int64_t quant_mode = 0;
    int64_t expert_token_nums_type = 1;
    const aclTensor *x = nullptr, *expert_ids = nullptr, *scales = nullptr,
                    *x_active_mask = nullptr, *expert_scales = nullptr, *elastic_info = nullptr,
                    *performance_info = nullptr;
    aclTensor *expand_x = nullptr, *dynamic_scales = nullptr, *assist_info_for_combine = nullptr,
              *expert_token_nums = nullptr, *ep_recv_counts = nullptr, *tp_recv_counts = nullptr,
              *expand_scales = nullptr;  // outputs
};

struct CombineCall {
    static constexpr const char* kOperator = "npu_moe_distribute_combine_v2";
    static constexpr const char* kAclnn = "aclnnMoeDistributeCombine";

    Attributes attributes;
    int64_t out_dtype = 0;
    int64_t comm_quant_mode = 0;
    int64_t group_list_type = 0;
    const aclTensor *expand_x = nullptr, *expert_ids = nullptr, *assist_info_for_combine = nullptr,
                    *ep_send_counts = nullptr, *expert_scales = nullptr, *tp_send_counts = nullptr,
                    *x_active_mask = nullptr, *activation_scale = nullptr, *weight_scale = nullptr,
                    *group_list = nullptr, *expand_scales = nullptr, *shared_expert_x = nullptr,
                    *elastic_info = nullptr, *ori_x = nullptr, *const_expert_alpha_1 = nullptr,
                    *const_expert_alpha_2 = nullptr, *const_expert_v = nullptr,
                    *performance_info = nullptr;
    aclTensor* out = nullptr;
};

// The two phases of an aclnn function, whichever generation it came through. Defined by the library
// that aclnn_entry.cpp is part of: ours (phases.cpp), or the one that stands for CANN's own
// operators on the virtual NPU (kernels/standin/moe).
int PhaseOne(const DispatchCall& call, uint64_t* workspace_bytes, aclOpExecutor** executor);
int PhaseOne(const CombineCall& call, uint64_t* workspace_bytes, aclOpExecutor** executor);
// `aclnn` names the operator: kAclnn of its call.
int PhaseTwo(const char* aclnn, void* workspace, uint64_t workspace_bytes, aclOpExecutor* executor,
             aclrtStream stream);

}  // namespace ascend_moe
