// Argument checks of phase one: what the operators need to run at all.
//
// The documented limits (how many experts, which hidden sizes, ..) are the business of the Python
// package, which knows products and contracts. Here is what keeps a kernel from reading or writing
// memory that is not its own, and what makes the ranks wait for each other.
#pragma once

#include "arguments.h"

namespace ascend_moe {

// ACL_SUCCESS, or an aclnn status with a text for aclGetRecentErrMsg that names parameter, value
// and limit.
int Check(const DispatchArguments& arguments);
int Check(const CombineArguments& arguments);

}  // namespace ascend_moe
