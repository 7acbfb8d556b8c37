// See driver.h. The file is the one that ascend_moe/hardware/driver.py reads.
//
// The virtual NPU has no driver. For tests, ASCEND_MOE_VNPU_DRIVER=VERSION plays one.
#include "driver.h"

#include <strings.h>

#include <cstdlib>
#include <cstring>
#include <fstream>

namespace ascend_moe {

std::string DriverVersion() {
#ifdef ASCEND_MOE_VIRTUAL_NPU
    const char* played = getenv("ASCEND_MOE_VNPU_DRIVER");
    return played == nullptr ? "" : played;
#else
    constexpr char kVersion[] = "Version=";
    std::ifstream file("/usr/local/Ascend/driver/version.info");
    for (std::string line; std::getline(file, line);) {
        if (strncasecmp(line.c_str(), kVersion, strlen(kVersion)) == 0)
            return line.substr(strlen(kVersion),
                               line.find_last_not_of("\r ") + 1 - strlen(kVersion));
    }
    return "";
#endif
}

}  // namespace ascend_moe
