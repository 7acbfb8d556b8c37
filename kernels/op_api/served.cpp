// See served.h.
#include "served.h"

#include "moe_limits.h"
#include "report.h"

namespace ascend_moe {
namespace {

// Of our kernels, in tokens and in words of int32 x.
const limits::PathLimits& LimitsOf(const World& world) {
    return world.a2 ? limits::kCann91A2FullMesh : limits::kCann91A3FullMesh;
}

// What the operators have and the kernels do not.
int CheckWritten(const char* op, const Tensor& performance_info) {
    if (!performance_info.present) return ACL_SUCCESS;
    return Fail(kInnerError,
                "%s: performance_info is not written by the kernels of ascend_moe; "
                "ASCEND_MOE_KERNELS=off uses those of CANN",
                op);
}

// What A2's own operators do not have, ours do not have there either.
int CheckProduct(const char* op, const World& world, const Parameters& p,
                 const Tensor& elastic_info) {
    if (!world.a2) return ACL_SUCCESS;
    const int64_t multiple = LimitsOf(world).hidden_multiple;
    if (p.hidden % multiple != 0)
        return Fail(kInnerError, "%s: H=%u, must be a multiple of %ld on A2", op, p.hidden,
                    multiple);
    const struct {
        const char* name;
        int64_t value;
    } absent[] = {{"shared_expert_rank_num", p.shared_ranks},
                  {"const_expert_num", p.const_experts},
                  {"tp_world_size", p.tp ? 2 : 0},
                  {"comm_quant_mode", p.comm_quant ? 2 : 0},
                  {"shared_expert_x", p.shared_x},
                  {"elastic_info", elastic_info.present}};
    for (const auto& [name, value] : absent) {
        if (value == 0) continue;
        return Fail(kInnerError, "%s: %s is given, which A2 full mesh does not have", op, name);
    }
    return ACL_SUCCESS;
}

// What the kernels' buffers and the control area are made for.
int CheckSizes(const char* op, const World& world, const Parameters& p, const Attributes& a,
               const Tensor& elastic_info) {
    const limits::PathLimits& limits = LimitsOf(world);
    const struct {
        const char* name;
        int64_t value, most;
    } sizes[] = {
        {"H", p.hidden, Packed(p) ? limits::kPackedHiddenMax : limits.hidden_max},
        {"K", p.topk, limits.topk_max},
        {"max_bs", p.max_batch, limits.batch_max},
        {"moe_expert_num", p.moe_experts, limits.moe_experts_max},
        {"shared_expert_num", p.shared_experts, limits::kSharedExpertsMax},
        {"ep_world_size", a.ep_world_size, limits.ep_max},
        {"zero_expert_num + copy_expert_num + const_expert_num + moe_expert_num",
         a.zero_expert_num + a.copy_expert_num + a.const_expert_num + a.moe_expert_num,
         limits::kExpertsTotalBelow - 1},
        {"bytes for the counts of all ranks",
         static_cast<int64_t>(CountsBytes(p, static_cast<uint32_t>(a.ep_world_size))),
         static_cast<int64_t>(kCountsBytes)},
    };
    for (const auto& [name, value, most] : sizes) {
        if (value <= most) continue;
        return Fail(kInnerError, "%s: %s=%ld, the limit of our kernels on %s is %ld", op, name,
                    value, world.a2 ? "A2" : "A3", most);
    }
    return CheckProduct(op, world, p, elastic_info);
}

}  // namespace

int CheckServed(const char* op, const World& world, const Parameters& p, const Attributes& a,
                const Tensor& elastic_info, const Tensor& performance_info) {
    const int status = CheckWritten(op, performance_info);
    return status == ACL_SUCCESS ? CheckSizes(op, world, p, a, elastic_info) : status;
}

int CheckWindow(const char* op, const Windows& windows, Parameters p, const Attributes& a,
                const std::function<uint64_t(const Parameters&)>& need) {
    const uint64_t needed = need(p);
    if (needed <= windows.bytes) return ACL_SUCCESS;
    const uint32_t max_batch = p.max_batch;
    while (p.max_batch > 0 && need(p) > windows.bytes) --p.max_batch;
    const uint64_t megabyte = uint64_t{windows.per_buffsize} << 20;
    const uint64_t have_mb = windows.bytes / megabyte;
    const uint64_t need_mb = (needed + megabyte - 1) / megabyte;
    return Fail(kInnerError,
                "%s: HCCL_BUFFSIZE is too SMALL for the kernels of ascend_moe: the group has %lu "
                "MB, NEEDED_HCCL_BUFFSIZE = %lu MB (%lu bytes for max_bs=%u, H=%u, K=%u, "
                "ep_world_size=%ld, moe_expert_num=%u); the largest max_bs that fits is %u; on "
                "every rank: export HCCL_BUFFSIZE=%lu",
                op, static_cast<unsigned long>(have_mb), static_cast<unsigned long>(need_mb),
                static_cast<unsigned long>(needed), max_batch, p.hidden, p.topk, a.ep_world_size,
                p.moe_experts, p.max_batch, static_cast<unsigned long>(need_mb));
}

int CheckTpWindow(const char* op, const Windows& windows, const Parameters& p, uint32_t blocks) {
    const uint64_t needed = p.tp ? TpWindowBytes(p.hidden, blocks) : 0;
    if (needed <= windows.bytes) return ACL_SUCCESS;
    return Fail(kInnerError,
                "%s: HCCL_BUFFSIZE is too SMALL: the window of group_tp has %lu bytes, %lu are "
                "needed for H=%u on %u cores",
                op, static_cast<unsigned long>(windows.bytes), static_cast<unsigned long>(needed),
                p.hidden, blocks);
}

int CheckRoom(const char* op, const char* name, const Tensor& tensor, int64_t elements) {
    if (tensor.present && tensor.elements() >= elements) return ACL_SUCCESS;
    return Fail(kInnerError, "%s: %s has shape %s, needs at least %ld elements", op, name,
                tensor.Text().c_str(), elements);
}

}  // namespace ascend_moe
