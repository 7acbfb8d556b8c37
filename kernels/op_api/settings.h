// Environment variables that the library reads.
#pragma once

#include <cstdint>
#include <string>

namespace ascend_moe {

enum class Kernels { kOff, kAuto, kRequire };

// ASCEND_MOE_KERNELS; `problem` is set when it is none of off, auto, require.
Kernels ChosenKernels(std::string* problem);

// Seconds until a rank that does not come is reported, when a group is opened and in a kernel:
// ASCEND_MOE_TIMEOUT_S, else HCCL's own limits (HCCL_CONNECT_TIMEOUT 120, HCCL_EXEC_TIMEOUT 1836).
//
// A kernel that waits must end, and leave its record, before the hardware scheduler ends it: so no
// longer than KernelLimitSeconds(), which is also what 0, HCCL's "no limit", stands for.
int64_t OpenTimeoutSeconds();
int64_t KernelTimeoutSeconds();
// How long a kernel may wait at most: what the runtime says about operators now (torch_npu asks it
// for 547 s), less a margin of 15 s or 3 %, whichever is more, but not more than half.
int64_t KernelLimitSeconds();
// Until HCCL gives up building links: HCCL_CONNECT_TIMEOUT.
int64_t LinkTimeoutSeconds();

}  // namespace ascend_moe
