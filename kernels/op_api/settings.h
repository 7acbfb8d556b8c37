// Environment variables that the library reads.
#pragma once

#include <cstdint>
#include <string>

namespace ascend_moe {

enum class Kernels { kOff, kAuto, kRequire };

// ASCEND_MOE_KERNELS; `problem` is set when it is none of off, auto, require.
Kernels ChosenKernels(std::string* problem);

// Seconds until a rank that does not come is reported, when a group is opened and in a kernel:
// ASCEND_MOE_TIMEOUT_S, else HCCL's own limits (HCCL_CONNECT_TIMEOUT 120, HCCL_EXEC_TIMEOUT 1836; 0
// for the latter is no limit).
int64_t OpenTimeoutSeconds();
int64_t KernelTimeoutSeconds();

}  // namespace ascend_moe
