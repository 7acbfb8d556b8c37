// See settings.h.
#include "settings.h"

#include <algorithm>
#include <cstdlib>

#include "runtime.h"

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

int64_t KernelLimitSeconds() {
    constexpr int64_t kUnknown = 500, kCountable = 86'400;  // of a kernel's 32 bits, about 88 000
    const int64_t limit_ms = OperatorLimitMs();
    if (limit_ms < 0) return kUnknown;
    const int64_t margin_ms = std::min(std::max<int64_t>(15'000, limit_ms * 3 / 100), limit_ms / 2);
    return std::clamp<int64_t>((limit_ms - margin_ms) / 1000, 1, kCountable);
}

int64_t OpenTimeoutSeconds() { return Seconds("ASCEND_MOE_TIMEOUT_S", LinkTimeoutSeconds()); }
int64_t KernelTimeoutSeconds() {
    const int64_t wanted = Seconds("ASCEND_MOE_TIMEOUT_S", Seconds("HCCL_EXEC_TIMEOUT", 1836));
    const int64_t most = KernelLimitSeconds();
    return wanted == 0 ? most : std::min(wanted, most);
}
int64_t LinkTimeoutSeconds() { return Seconds("HCCL_CONNECT_TIMEOUT", 120); }

}  // namespace ascend_moe
