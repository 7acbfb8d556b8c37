// See settings.h.
#include "settings.h"

#include <cstdlib>

namespace ascend_moe {
namespace {

int64_t Seconds(const char* variable, int64_t fallback) {
    const char* text = getenv(variable);
    if (text == nullptr || *text == '\0') return fallback;
    char* end = nullptr;
    const double value = strtod(text, &end);
    if (end == text || value < 0 || value > 1e9) return fallback;
    return value > 0 && value < 1 ? 1 : static_cast<int64_t>(value);
}

}  // namespace

Kernels ChosenKernels(std::string* problem) {
    const char* text = getenv("ASCEND_MOE_KERNELS");
    const std::string value = text == nullptr || *text == '\0' ? "auto" : text;
    if (value == "off") return Kernels::kOff;
    if (value == "require") return Kernels::kRequire;
    if (value != "auto") *problem = "ASCEND_MOE_KERNELS=" + value + ", allowed: off, auto, require";
    return Kernels::kAuto;
}

int64_t OpenTimeoutSeconds() {
    return Seconds("ASCEND_MOE_TIMEOUT_S", Seconds("HCCL_CONNECT_TIMEOUT", 120));
}
int64_t KernelTimeoutSeconds() {
    return Seconds("ASCEND_MOE_TIMEOUT_S", Seconds("HCCL_EXEC_TIMEOUT", 1836));
}

}  // namespace ascend_moe
