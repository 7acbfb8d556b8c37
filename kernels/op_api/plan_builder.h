// What the tilings share: operands of a call and of its workspace, and the numbers of any call.
#pragma once

#include "tiling.h"

namespace ascend_moe {

// Collects operands; tensors with strides go through the workspace.
class PlanBuilder {
 public:
    PlanBuilder(const char* op, std::shared_ptr<const Group> group, Plan* plan)
        : op_(op), group_(std::move(group)), plan_(plan) {}

    int status() const { return status_; }

    Operand In(const char* name, const Tensor& tensor);
    // torch_npu allocates outputs itself, so they are contiguous.
    Operand Out(const char* name, const Tensor& tensor);
    // As much as there is room for.
    void Copy(const Operand& from, const Operand& to);
    Operand Scratch(const char* name, uint64_t bytes);

 private:
    static bool Contiguous(const Tensor& tensor);
    Packing PackingOf(const char* name, const Tensor& tensor);

    const char* const op_;
    const std::shared_ptr<const Group> group_;
    Plan* const plan_;
    int status_ = ACL_SUCCESS;
};

// What both operators have in common. `rows` is x, or expand_x.
Parameters Common(const Attributes& a, const World& world, const Tensor& ids, const Tensor& mask,
                  const Tensor& rows, const Tensor& performance_info, const Group& group);

Operand ContextOf(const Group& group);

// In several servers: tiling_servers.cpp.
int TileHierarchy(const DispatchArguments& call, const std::shared_ptr<const Group>& group,
                  Plan* plan);
int TileHierarchy(const CombineArguments& call, const std::shared_ptr<const Group>& group,
                  Plan* plan);

}  // namespace ascend_moe
