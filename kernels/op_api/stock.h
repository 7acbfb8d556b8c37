// CANN's own operators, for the groups that do not run ours.
//
// They are found as torch_npu would have found them without us: op-plugin's search
// (op_plugin/utils/op_api_common.cpp), minus every library that carries our mark. A call goes to
// the newest generation that is there; arguments that an older one has no place for are refused.
#pragma once

#include <string>

#include "entry/calls.h"

namespace ascend_moe {

// Path of the library that has the operator; empty if none has.
std::string StockLibrary(const char* aclnn);

int Forward(const DispatchCall& call, uint64_t* workspace_bytes, aclOpExecutor** executor);
int Forward(const CombineCall& call, uint64_t* workspace_bytes, aclOpExecutor** executor);
// Phase two of an executor that is not ours.
int ForwardRun(const char* aclnn, void* workspace, uint64_t workspace_bytes,
               aclOpExecutor* executor, aclrtStream stream);

}  // namespace ascend_moe
