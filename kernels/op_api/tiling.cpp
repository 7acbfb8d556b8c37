// See tiling.h.
#include "tiling.h"

#include <algorithm>

#include "report.h"
#include "runtime.h"
#include "served.h"

namespace ascend_moe {
namespace {

constexpr uint64_t kAlignment = 512;
constexpr uint64_t kInWorkspace = uint64_t{1} << 63;  // marks an offset in place of an address

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

    int status = CheckServed(op, world, p, a, call.elastic_info, call.performance_info);
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
    const uint64_t count_bytes = sizeof(int32_t) * a.ep_world_size *
                                 world.experts_on(a.ep_rank_id, call.elastic_info.present) *
                                 (p.tp ? 2 : 1);
    const bool short_counts = counts.bytes < count_bytes;
    const Operand written = short_counts ? build.Scratch(counts.name, count_bytes) : counts;
    Launch launch{
        Kernel::kDispatch,
        blocks,
        {ContextOf(*group), build.In("x", call.x), build.In("expert_ids", call.expert_ids),
         build.In("scales", call.scales), build.In("x_active_mask", call.x_active_mask),
         build.In("elastic_info", call.elastic_info), build.Out("expand_x", call.expand_x),
         build.Out("dynamic_scales", call.dynamic_scales),
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

    int status = CheckServed(op, world, p, a, call.elastic_info, call.performance_info);
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
                   build.In("shared_expert_x", call.shared_expert_x),
                   build.In("elastic_info", call.elastic_info), build.In("ori_x", call.ori_x),
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
