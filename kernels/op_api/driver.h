// Which NPU driver is installed, as far as one may ask before HCCL is asked for anything.
#pragma once

#include <string>

namespace ascend_moe {

// As it writes it into the file that it leaves behind, such as 25.0.rc1.1; empty where that is not
// to be seen, as in some containers.
std::string DriverVersion();

}  // namespace ascend_moe
