// The two operators as CANN's own libraries have them: op_api/entry, for libopapi of the stand-in.
//
// On hardware these are the stock kernels; here plain C++ with the same results to the bit, in
// every mode of A2 and A3. What libcust_opapi.so does not serve it forwards to them.
#include <memory>

#include "../../op_api/entry/check.h"
#include "../../op_api/report.h"
#include "operators.h"
#include "stock_window.h"

namespace ascend_moe {
namespace {

// What phase one leaves for phase two; torch_npu only carries the pointer.
struct Prepared {
    const char* name;
    standin::Task run;
};

int CheckMember(const char* op, const char* parameter, const std::string& name, int64_t size,
                int64_t rank) {
    const auto group = standin::Group::Find(name);
    if (group == nullptr) return CheckGroup(op, parameter, name, size, rank, nullptr);
    const Membership membership{group->size(), group->rank()};
    return CheckGroup(op, parameter, name, size, rank, &membership);
}

int CheckGroups(const char* op, const Attributes& a) {
    int status = CheckAttributes(op, a);
    if (status == ACL_SUCCESS)
        status = CheckMember(op, "group_ep", a.group_ep, a.ep_world_size, a.ep_rank_id);
    if (status == ACL_SUCCESS && a.tp_world_size == 2)
        status = CheckMember(op, "group_tp", a.group_tp, 2, a.tp_rank_id);
    return status;
}

int CheckSize(const DispatchArguments& call, const World& world) {
    return CheckWindow(DispatchCall::kOperator, world, call.attributes, call.x.shape[0],
                       call.x.shape[1], call.expert_ids.shape[1],
                       call.attributes.comm_alg == "fullmesh_v2");
}
int CheckSize(const CombineArguments& call, const World& world) {
    return CheckWindow(CombineCall::kOperator, world, call.attributes, call.expert_ids.shape[0],
                       call.expand_x.shape[1], call.expert_ids.shape[1], /*spread=*/false);
}

// The documents call it reserved since 2026-03 (ops-transformer e4109e72d).
int CheckReserved(const char* op, const Tensor& elastic_info) {
    if (!elastic_info.present) return ACL_SUCCESS;
    return Fail(kInnerError, "%s: elastic_info is reserved and must be None", op);
}

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

template <typename Arguments, typename Call>
int Prepare(const Call& call, uint64_t* workspace_bytes, aclOpExecutor** executor) {
    *workspace_bytes = 0;
    *executor = nullptr;
    const Arguments arguments = Arguments::Of(call);
    const World world = World::Of(call.attributes);
    standin::Task run;
    int status = CheckGroups(Call::kOperator, call.attributes);
    if (status == ACL_SUCCESS) status = CheckReserved(Call::kOperator, arguments.elastic_info);
    if (status == ACL_SUCCESS) status = Check(arguments, world);
    if (status == ACL_SUCCESS) status = CheckSize(arguments, world);
    if (status == ACL_SUCCESS) status = Plan(arguments, &run);
    if (status != ACL_SUCCESS && !FailureIsLeftToStream()) return status;
    if (status != ACL_SUCCESS) run = Failing(status);
    *executor = reinterpret_cast<aclOpExecutor*>(new Prepared{Call::kAclnn, std::move(run)});
    return ACL_SUCCESS;
}

}  // namespace

int PhaseOne(const DispatchCall& call, uint64_t* workspace_bytes, aclOpExecutor** executor) {
    return Prepare<DispatchArguments>(call, workspace_bytes, executor);
}
int PhaseOne(const CombineCall& call, uint64_t* workspace_bytes, aclOpExecutor** executor) {
    return Prepare<CombineArguments>(call, workspace_bytes, executor);
}

int PhaseTwo(const char* aclnn, void*, uint64_t, aclOpExecutor* executor, aclrtStream stream) {
    if (executor == nullptr)
        return Fail(kNullPointer, "%s: phase two without a successful phase one", aclnn);
    const std::unique_ptr<Prepared> prepared(reinterpret_cast<Prepared*>(executor));
    return standin::Launch(stream, prepared->name, std::move(prepared->run));
}

}  // namespace ascend_moe
