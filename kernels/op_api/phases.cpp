// The two phases of the aclnn functions: whose call it is, what it takes, and its launches.
#include "entry/arguments.h"
#include "executors.h"
#include "group.h"
#include "launch.h"
#include "profiling.h"
#include "report.h"
#include "stock.h"

// By which ascend_moe.hardware knows a copy of this library.
extern "C" __attribute__((visibility("default"))) int ascend_moe_library_version() {
    return ascend_moe::kAbiVersion;
}

namespace ascend_moe {
namespace {

template <typename Arguments, typename Call>
int Prepare(const Call& call, const std::shared_ptr<Group>& group, Plan* plan) {
    const std::string failure = group->Failure();
    if (!failure.empty()) return Fail(kInnerError, "%s: %s", Call::kOperator, failure.c_str());
    const Arguments arguments = Arguments::Of(call);
    const World world = World::Of(call.attributes);
    if (world.hierarchy() != (group->form() == Form::kHierarchy)) {
        return Fail(kInnerError,
                    "%s: this call says %s, but group_ep %s runs our kernels of %s since its first "
                    "call; use another group",
                    Call::kOperator, world.hierarchy() ? "hierarchy" : "full mesh",
                    call.attributes.group_ep.c_str(), NameOf(group->form()));
    }
    if (group->shrunk() && !arguments.elastic_info.present) {
        return Fail(kInnerError,
                    "%s: group_ep %s goes on without ranks %s (ascend_moe.shrink): pass the "
                    "elastic_info that it returned",
                    Call::kOperator, call.attributes.group_ep.c_str(), group->Gone().c_str());
    }
    int status = Check(arguments, world);
    if (status == ACL_SUCCESS) status = Tile(arguments, group, plan);
    if (status == ACL_SUCCESS) group->Serves(call.attributes);
    return status;
}

template <typename Arguments, typename Call>
int Serve(const Call& call, uint64_t* workspace_bytes, aclOpExecutor** executor) {
    *workspace_bytes = 0;
    *executor = nullptr;
    std::shared_ptr<Group> group;
    Prepared prepared;
    prepared.status = CheckAttributes(Call::kOperator, call.attributes);
    if (prepared.status == ACL_SUCCESS)
        prepared.status = Group::Of(Call::kOperator, call.attributes, &group);
    if (prepared.status == ACL_SUCCESS && !group->ours())
        return Forward(call, workspace_bytes, executor);
    if (prepared.status == ACL_SUCCESS)
        prepared.status = Prepare<Arguments>(call, group, &prepared.plan);
    if (prepared.status != ACL_SUCCESS) {
        if (!StreamsShowFailures()) return prepared.status;
        prepared.text = TakeText();
    }
    *workspace_bytes = prepared.plan.workspace_bytes;
    *executor = Remember(std::move(prepared));
    return ACL_SUCCESS;
}

}  // namespace

int PhaseOne(const DispatchCall& call, uint64_t* workspace_bytes, aclOpExecutor** executor) {
    const Range range("aclnnMoeDistributeDispatchGetWorkspaceSize");
    return Serve<DispatchArguments>(call, workspace_bytes, executor);
}
int PhaseOne(const CombineCall& call, uint64_t* workspace_bytes, aclOpExecutor** executor) {
    const Range range("aclnnMoeDistributeCombineGetWorkspaceSize");
    return Serve<CombineArguments>(call, workspace_bytes, executor);
}

int PhaseTwo(const char* aclnn, void* workspace, uint64_t workspace_bytes, aclOpExecutor* executor,
             aclrtStream stream) {
    const Range range(aclnn);
    if (executor == nullptr)
        return Fail(kNullPointer, "%s: phase two without a successful phase one", aclnn);
    Prepared prepared;
    if (!Take(executor, &prepared))
        return ForwardRun(aclnn, workspace, workspace_bytes, executor, stream);
    if (prepared.status != ACL_SUCCESS)
        return StartFailing(aclnn, prepared.status, prepared.text, stream);
    if (workspace_bytes < prepared.plan.workspace_bytes ||
        (workspace == nullptr && prepared.plan.workspace_bytes > 0)) {
        return Fail(kBadParameter, "%s: a workspace of %lu bytes, phase one asked for %lu", aclnn,
                    static_cast<unsigned long>(workspace_bytes),
                    static_cast<unsigned long>(prepared.plan.workspace_bytes));
    }
    for (const Launch& launch : prepared.plan.In(workspace)) {
        const int status = Start(launch, stream);
        if (status != ACL_SUCCESS) return status;
    }
    return ACL_SUCCESS;
}

}  // namespace ascend_moe
