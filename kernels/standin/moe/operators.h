// The two operators in plain C++, as tasks for a stream of the virtual NPU.
//
// They stand where an AscendC kernel is launched on hardware: same arguments, same results to the
// bit, other means. Ranks exchange rows through the windows of their group (post.h); a rank that
// cannot go on tells the others before it stops.
#pragma once

#include "../../op_api/entry/arguments.h"
#include "standin.h"

namespace ascend_moe {

// Translate the tensors and make the task. The arguments have passed Check.
int Plan(const DispatchArguments& arguments, standin::Task* task);
int Plan(const CombineArguments& arguments, standin::Task* task);

}  // namespace ascend_moe
