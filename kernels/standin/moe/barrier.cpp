// aclnnDistributeBarrier: the ranks of a group wait for each other, in the stream.
//
// Argument order: op-plugin op_plugin/ops/opapi/DistributeBarrierOpApi.cpp. A rank that does not
// come ends the stream, as it does dispatch and combine.
#include "../../op_api/entry/check.h"
#include "../nnopbase/containers.h"

namespace {

constexpr const char* kOp = "_npu_distribute_barrier";

int Prepare(const aclTensor* x_ref, const aclTensor* time_out, const aclTensor* elastic_info,
            const char* group_name, int64_t world_size, uint64_t* workspace_bytes,
            aclOpExecutor** executor) {
    if (x_ref == nullptr)
        return standin::Fail(standin::kAclnnNullPointer, "%s: x_ref is None", kOp);
    if (time_out != nullptr || elastic_info != nullptr) {
        return standin::Fail(standin::kAclnnBadParameter,
                             "%s: time_out and elastic_info are not available on the virtual NPU",
                             kOp);
    }
    const std::string name = group_name == nullptr ? "" : group_name;
    const auto group = standin::Group::Find(name);
    if (group == nullptr) return ascend_moe::CheckGroup(kOp, "group", name, world_size, 0, nullptr);
    const ascend_moe::Membership membership{group->size(), group->rank()};
    const int status =
        ascend_moe::CheckGroup(kOp, "group", name, world_size, group->rank(), &membership);
    if (status != ACL_SUCCESS) return status;
    const auto run = [group] { return group->KernelBarrier(kOp); };
    return standin::Prepare("aclnnDistributeBarrier", run, workspace_bytes, executor);
}

}  // namespace

extern "C" {

int aclnnDistributeBarrierGetWorkspaceSize(const aclTensor* x_ref, const char* group,
                                           int64_t world_size, uint64_t* workspace_bytes,
                                           aclOpExecutor** executor) {
    return Prepare(x_ref, nullptr, nullptr, group, world_size, workspace_bytes, executor);
}
int aclnnDistributeBarrier(void*, uint64_t workspace_bytes, aclOpExecutor* executor,
                           aclrtStream stream) {
    return standin::RunPrepared(executor, workspace_bytes, stream);
}

int aclnnDistributeBarrierV2GetWorkspaceSize(const aclTensor* x_ref, const aclTensor* time_out,
                                             const aclTensor* elastic_info, const char* group,
                                             int64_t world_size, uint64_t* workspace_bytes,
                                             aclOpExecutor** executor) {
    return Prepare(x_ref, time_out, elastic_info, group, world_size, workspace_bytes, executor);
}
int aclnnDistributeBarrierV2(void*, uint64_t workspace_bytes, aclOpExecutor* executor,
                             aclrtStream stream) {
    return standin::RunPrepared(executor, workspace_bytes, stream);
}

}  // extern "C"
