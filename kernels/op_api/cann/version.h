// Which version of HCCL's package is running.
#pragma once

#include <string>

namespace ascend_moe::cann {

// As its version.info has it, such as 8.5.0 or 9.1.RC1. Where there is no package hcomm (CANN
// before 8.5) that of runtime; empty when CANN does not tell.
std::string HcclVersion();

}  // namespace ascend_moe::cann
