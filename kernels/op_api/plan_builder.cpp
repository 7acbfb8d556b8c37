// See plan_builder.h.
#include "plan_builder.h"

#include <algorithm>

#include "report.h"
#include "runtime.h"

namespace ascend_moe {
namespace {

constexpr uint64_t kAlignment = 512;
constexpr uint64_t kInWorkspace = uint64_t{1} << 63;  // marks an offset in place of an address

}  // namespace

Operand PlanBuilder::In(const char* name, const Tensor& tensor) {
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

Operand PlanBuilder::Out(const char* name, const Tensor& tensor) {
    if (!tensor.present || tensor.elements() == 0) return {name, 0, 0};
    if (!Contiguous(tensor) && status_ == ACL_SUCCESS)
        status_ = Fail(kBadParameter, "%s: the output %s is not contiguous", op_, name);
    return {name, reinterpret_cast<uint64_t>(tensor.first),
            tensor.elements() * aclDataTypeSize(tensor.type)};
}

void PlanBuilder::Copy(const Operand& from, const Operand& to) {
    Packing bytes{{1, 1, static_cast<uint32_t>(to.bytes)}, 1, {0, 0, 1}};
    Launch copy{Kernel::kPack, 1, {from, to}, {}, group_};
    copy.Pass(bytes);
    plan_->launches.push_back(std::move(copy));
}

Operand PlanBuilder::Scratch(const char* name, uint64_t bytes) {
    if (bytes == 0) return {name, 0, 0};
    const uint64_t offset = plan_->workspace_bytes;
    plan_->workspace_bytes += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return {name, kInWorkspace | offset, bytes};
}

bool PlanBuilder::Contiguous(const Tensor& tensor) {
    int64_t step = 1;
    for (size_t d = tensor.shape.size(); d-- > 0;) {
        if (tensor.shape[d] != 1 && tensor.strides[d] != step) return false;
        step *= tensor.shape[d];
    }
    return true;
}

// Leading dimensions that walk memory like one are joined, so that three are enough.
Packing PlanBuilder::PackingOf(const char* name, const Tensor& tensor) {
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
        status_ = Fail(kBadParameter, "%s: %s has shape %s with strides of more than three kinds",
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

Parameters Common(const Attributes& a, const World& world, const Tensor& ids, const Tensor& mask,
                  const Tensor& rows, const Tensor& performance_info, const Group& group) {
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
    p.waits = !performance_info.present ? Waits::kUntold
              : world.a2                ? Waits::kAdded
                                        : Waits::kLongest;
    p.timeout_ticks = group.timeout_ticks();
    return p;
}

Operand ContextOf(const Group& group) {
    return {"context", group.context(), sizeof(HierarchyContext)};
}

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

}  // namespace ascend_moe
