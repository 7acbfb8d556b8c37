// Argument checks of phase one: what the operators need to run at all.
//
// The documented limits (how many experts, which hidden sizes, ..) are the business of the Python
// package, which knows products and contracts. Here is what keeps a kernel from reading or writing
// memory that is not its own, and what makes the ranks wait for each other.
//
// Each function returns ACL_SUCCESS, or an aclnn status with a text that names parameter, value and
// limit.
#pragma once

#include <string>

#include "arguments.h"
#include "world.h"

namespace ascend_moe {

// First, because everything else is computed from them.
int CheckAttributes(const char* op, const Attributes& attributes);

// What HCCL says about a group.
struct Membership {
    uint32_t ranks, rank;
};
// `parameter` named the group; a null membership is that of no communicator.
int CheckGroup(const char* op, const char* parameter, const std::string& name, int64_t size,
               int64_t rank, const Membership* membership);

int Check(const DispatchArguments& arguments, const World& world);
int Check(const CombineArguments& arguments, const World& world);

}  // namespace ascend_moe
