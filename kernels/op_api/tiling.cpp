// See tiling.h.
#include "tiling.h"

#include <algorithm>

#include "moe_limits.h"
#include "report.h"
#include "runtime.h"

namespace ascend_moe {
namespace {

constexpr uint64_t kAlignment = 512;
constexpr uint64_t kInWorkspace = uint64_t{1} << 63;  // marks an offset in place of an address

// Of our kernels, in tokens and in words of int32 x.
const limits::PathLimits& LimitsOf(const World& world) {
    return world.a2 ? limits::kCann91A2FullMesh : limits::kCann91A3FullMesh;
}

// Collects operands; tensors with strides go through the workspace.
class Builder {
 public:
    Builder(const char* op, std::shared_ptr<const Group> group, Plan* plan)
        : op_(op), group_(std::move(group)), plan_(plan) {}

    int status() const { return status_; }

    Operand In(const char* name, const Tensor& tensor) {
        if (!tensor.present || tensor.elements() == 0) return {name, 0, 0};
        const uint64_t bytes = tensor.elements() * aclDataTypeSize(tensor.type);
        const uint64_t first = reinterpret_cast<uint64_t>(tensor.first);
        if (Contiguous(tensor)) return {name, first, bytes};
        const Operand target = Scratch(name, bytes);
        Launch pack{Kernel::kPack,
                    GrantedCores(),
                    {{name, first, tensor.span() * aclDataTypeSize(tensor.type)}, target},
                    {},
                    group_};
        pack.Pass(PackingOf(name, tensor));
        plan_->launches.push_back(std::move(pack));
        return target;
    }

    // torch_npu allocates outputs itself, so they are contiguous.
    Operand Out(const char* name, const Tensor& tensor) {
        if (!tensor.present || tensor.elements() == 0) return {name, 0, 0};
        if (!Contiguous(tensor) && status_ == ACL_SUCCESS)
            status_ = Fail(kBadParameter, "%s: the output %s is not contiguous", op_, name);
        return {name, reinterpret_cast<uint64_t>(tensor.first),
                tensor.elements() * aclDataTypeSize(tensor.type)};
    }

    // As much as there is room for.
    void Copy(const Operand& from, const Operand& to) {
        Packing bytes{{1, 1, static_cast<uint32_t>(to.bytes)}, 1, {0, 0, 1}};
        Launch copy{Kernel::kPack, 1, {from, to}, {}, group_};
        copy.Pass(bytes);
        plan_->launches.push_back(std::move(copy));
    }

    Operand Scratch(const char* name, uint64_t bytes) {
        if (bytes == 0) return {name, 0, 0};
        const uint64_t offset = plan_->workspace_bytes;
        plan_->workspace_bytes += (bytes + kAlignment - 1) / kAlignment * kAlignment;
        return {name, kInWorkspace | offset, bytes};
    }

 private:
    static bool Contiguous(const Tensor& tensor) {
        int64_t step = 1;
        for (size_t d = tensor.shape.size(); d-- > 0;) {
            if (tensor.shape[d] != 1 && tensor.strides[d] != step) return false;
            step *= tensor.shape[d];
        }
        return true;
    }

    // Leading dimensions that walk memory like one are joined, so that three are enough.
    Packing PackingOf(const char* name, const Tensor& tensor) {
        std::vector<std::pair<int64_t, int64_t>> dimensions;  // size, stride in elements
        for (size_t d = 0; d < tensor.shape.size(); ++d) {
            const int64_t size = tensor.shape[d], stride = tensor.strides[d];
            if (size == 1) continue;
            if (!dimensions.empty() && dimensions.back().second == size * stride) {
                dimensions.back() = {dimensions.back().first * size, stride};
            } else {
                dimensions.push_back({size, stride});
            }
        }
        while (dimensions.size() < 3) dimensions.insert(dimensions.begin(), {1, 0});
        if (dimensions.size() > 3 && status_ == ACL_SUCCESS) {
            status_ =
                Fail(kBadParameter, "%s: %s has shape %s with strides of more than three kinds",
                     op_, name, tensor.Text().c_str());
        }
        Packing packing{};
        packing.element_bytes = static_cast<uint32_t>(aclDataTypeSize(tensor.type));
        for (size_t d = 0; d < 3; ++d) {
            packing.size[d] = static_cast<uint32_t>(dimensions[d].first);
            packing.stride[d] = dimensions[d].second * packing.element_bytes;
        }
        return packing;
    }

    const char* const op_;
    const std::shared_ptr<const Group> group_;
    Plan* const plan_;
    int status_ = ACL_SUCCESS;
};

Parameters Common(const Attributes& a, const World& world, const Tensor& ids, const Tensor& mask,
                  const Tensor& rows, const Group& group) {
    Parameters p{};
    p.batch = static_cast<uint32_t>(ids.shape[0]);
    p.max_batch = static_cast<uint32_t>(MaxBatch(a, ids.shape[0]));
    p.hidden = static_cast<uint32_t>(rows.shape[1]);
    p.topk = static_cast<uint32_t>(ids.shape[1]);
    p.moe_experts = static_cast<uint32_t>(world.moe_experts);
    p.local_experts = static_cast<uint32_t>(world.local_experts());
    p.shared_experts = static_cast<uint32_t>(world.shared_experts);
    p.shared_ranks = static_cast<uint32_t>(world.shared_ranks);
    p.zero_experts = static_cast<uint32_t>(a.zero_expert_num);
    p.copy_experts = static_cast<uint32_t>(a.copy_expert_num);
    p.const_experts = static_cast<uint32_t>(a.const_expert_num);
    p.element = rows.type == ACL_FLOAT16 ? Element::kFloat16
                : rows.type == ACL_INT32 ? Element::kInt4x8
                                         : Element::kBfloat16;
    p.mask = !mask.present ? Mask::kNone : mask.shape.size() == 1 ? Mask::kTokens : Mask::kPairs;
    p.tp = a.tp_world_size == 2;
    p.timeout_ticks = group.timeout_ticks();
    return p;
}

// What the operators have and the kernels do not.
int CheckServed(const char* op, const Tensor& performance_info) {
    if (!performance_info.present) return ACL_SUCCESS;
    return Fail(kInnerError,
                "%s: performance_info is not written by the kernels of ascend_moe; "
                "ASCEND_MOE_KERNELS=off uses those of CANN",
                op);
}

// What A2's own operators do not have, ours do not have there either.
int CheckProduct(const char* op, const World& world, const Parameters& p) {
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
                  {"shared_expert_x", p.shared_x}};
    for (const auto& [name, value] : absent) {
        if (value == 0) continue;
        return Fail(kInnerError, "%s: %s is given, which A2 full mesh does not have", op, name);
    }
    return ACL_SUCCESS;
}

// What the kernels' buffers and the control area are made for.
int CheckSizes(const char* op, const World& world, const Parameters& p, const Attributes& a) {
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
    return CheckProduct(op, world, p);
}

// `need` and `have` are of the whole window; `fits` tells whether a smaller max_bs would.
template <typename Need>
int CheckWindow(const char* op, const Windows& windows, Parameters p, const Attributes& a,
                Need need) {
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

// A core for every few rows: on all cores a launch costs more than a small batch. Both ranks of a
// TP pair must come to the same number, so nothing counts here that may differ between them.
uint32_t Blocks(const Parameters& p, const Attributes& a) {
    constexpr uint32_t kRowsPerCore = 4, kPeersPerCore = 16;
    const uint32_t rows = p.max_batch * (p.topk + p.shared_experts);
    const uint32_t wanted =
        std::max(CeilDiv(rows, kRowsPerCore),
                 CeilDiv(static_cast<uint32_t>(a.ep_world_size), kPeersPerCore));
    return std::clamp(wanted, 1u, GrantedCores());
}

Operand ContextOf(const Group& group) { return {"context", group.context(), sizeof(Context)}; }

int CheckRoom(const char* op, const char* name, const Tensor& tensor, int64_t elements) {
    if (tensor.present && tensor.elements() >= elements) return ACL_SUCCESS;
    return Fail(kInnerError, "%s: %s has shape %s, needs at least %ld elements", op, name,
                tensor.Text().c_str(), elements);
}

}  // namespace

std::vector<Launch> Plan::In(void* workspace) const {
    std::vector<Launch> placed = launches;
    for (Launch& launch : placed) {
        for (Operand& operand : launch.operands) {
            if (operand.address & kInWorkspace)
                operand.address =
                    reinterpret_cast<uint64_t>(workspace) + (operand.address & ~kInWorkspace);
        }
    }
    return placed;
}

int Tile(const DispatchArguments& call, const std::shared_ptr<const Group>& group, Plan* plan) {
    const char* op = DispatchCall::kOperator;
    const Attributes& a = call.attributes;
    const World world = World::Of(a);
    Parameters p = Common(a, world, call.expert_ids, call.x_active_mask, call.x, *group);
    p.quant = call.quant_mode == 2;
    p.smooth = p.quant && call.scales.present;
    p.cumulative_counts = call.expert_token_nums_type == 0;
    p.capacity = static_cast<uint32_t>(call.expand_x.shape[0]);

    int status = CheckServed(op, call.performance_info);
    if (status == ACL_SUCCESS) status = CheckSizes(op, world, p, a);
    const auto need = [&](const Parameters& sized) {
        return WindowBytes(DispatchBytes(sized, static_cast<uint32_t>(a.ep_world_size)), 0);
    };
    if (status == ACL_SUCCESS) status = CheckWindow(op, group->ep_windows(), p, a, need);
    const uint32_t blocks = Blocks(p, a);
    if (status == ACL_SUCCESS) status = CheckTpWindow(op, group->tp_windows(), p, blocks);
    if (status == ACL_SUCCESS)
        status = CheckRoom(op, "assist_info_for_combine", call.assist_info_for_combine,
                           3 * int64_t{p.capacity});
    if (status == ACL_SUCCESS && HasScales(p))
        status = CheckRoom(op, "dynamic_scales", call.dynamic_scales, p.capacity);
    if (status == ACL_SUCCESS && p.tp)
        status = CheckRoom(op, "tp_recv_counts", call.tp_recv_counts, 2);
    if (status != ACL_SUCCESS) return status;

    Builder build(op, group, plan);
    // With TP and expert_scales torch_npu leaves no room for the peer's half of the counts.
    const Operand counts = build.Out("ep_recv_counts", call.ep_recv_counts);
    const uint64_t count_bytes =
        sizeof(int32_t) * a.ep_world_size * world.experts_on(a.ep_rank_id) * (p.tp ? 2 : 1);
    const bool short_counts = counts.bytes < count_bytes;
    const Operand written = short_counts ? build.Scratch(counts.name, count_bytes) : counts;
    Launch launch{
        Kernel::kDispatch,
        blocks,
        {ContextOf(*group), build.In("x", call.x), build.In("expert_ids", call.expert_ids),
         build.In("scales", call.scales), build.In("x_active_mask", call.x_active_mask),
         build.Out("expand_x", call.expand_x), build.Out("dynamic_scales", call.dynamic_scales),
         build.Out("assist_info_for_combine", call.assist_info_for_combine),
         build.Out("expert_token_nums", call.expert_token_nums), written,
         build.Out("tp_recv_counts", call.tp_recv_counts),
         build.Scratch("workspace", DispatchWorkspace(p))},
        {},
        group};
    launch.Pass(p);
    plan->launches.push_back(std::move(launch));
    if (short_counts) build.Copy(written, counts);
    return build.status();
}

int Tile(const CombineArguments& call, const std::shared_ptr<const Group>& group, Plan* plan) {
    const char* op = CombineCall::kOperator;
    const Attributes& a = call.attributes;
    const World world = World::Of(a);
    Parameters p = Common(a, world, call.expert_ids, call.x_active_mask, call.expand_x, *group);
    p.comm_quant = call.comm_quant_mode == 2;
    p.shared_x = call.shared_expert_x.present;
    p.capacity = static_cast<uint32_t>(call.expand_x.shape[0]);

    int status = CheckServed(op, call.performance_info);
    if (status == ACL_SUCCESS) status = CheckSizes(op, world, p, a);
    const auto need = [](const Parameters& sized) { return WindowBytes(0, CombineBytes(sized)); };
    if (status == ACL_SUCCESS) status = CheckWindow(op, group->ep_windows(), p, a, need);
    const uint32_t blocks = Blocks(p, a);
    if (status == ACL_SUCCESS) status = CheckTpWindow(op, group->tp_windows(), p, blocks);
    if (status == ACL_SUCCESS)
        status = CheckRoom(op, "assist_info_for_combine", call.assist_info_for_combine,
                           3 * int64_t{p.capacity});
    if (status == ACL_SUCCESS)
        status = CheckRoom(op, "expert_scales", call.expert_scales, int64_t{p.batch} * p.topk);
    if (status != ACL_SUCCESS) return status;

    Builder build(op, group, plan);
    Launch launch{Kernel::kCombine,
                  blocks,
                  {ContextOf(*group), build.In("expand_x", call.expand_x),
                   build.In("expert_ids", call.expert_ids),
                   build.In("assist_info_for_combine", call.assist_info_for_combine),
                   build.In("ep_send_counts", call.ep_send_counts),
                   build.In("expert_scales", call.expert_scales),
                   build.In("tp_send_counts", call.tp_send_counts),
                   build.In("x_active_mask", call.x_active_mask),
                   build.In("shared_expert_x", call.shared_expert_x), build.In("ori_x", call.ori_x),
                   build.In("const_expert_alpha_1", call.const_expert_alpha_1),
                   build.In("const_expert_alpha_2", call.const_expert_alpha_2),
                   build.In("const_expert_v", call.const_expert_v), build.Out("x", call.out),
                   build.Scratch("workspace", CombineWorkspace(p))},
                  {},
                  group};
    launch.Pass(p);
    plan->launches.push_back(std::move(launch));
    return build.status();
}

}  // namespace ascend_moe
