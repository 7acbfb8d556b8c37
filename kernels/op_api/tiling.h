// From the arguments of a call to the launches that serve it.
#pragma once

#include "entry/arguments.h"
#include "group.h"
#include "launch.h"

namespace ascend_moe {

// All of a call, before it has a workspace. Tensors that are not contiguous are packed into the
// workspace by launches of their own.
struct Plan {
    uint64_t workspace_bytes = 0;
    std::vector<Launch> launches;

    // The launches with addresses: operands that lie in the workspace hold offsets until then.
    std::vector<Launch> In(void* workspace) const;
};

// The arguments have passed Check. ACL_SUCCESS, or an aclnn status with a text.
int Tile(const DispatchArguments& call, const std::shared_ptr<const Group>& group, Plan* plan);
int Tile(const CombineArguments& call, const std::shared_ptr<const Group>& group, Plan* plan);

}  // namespace ascend_moe
