// See profiling.h.
//
// A record is what CANN writes for a direct launch: level node, type launch, the hash of the name
// (mirror-cann/asc-devkit:tools/build/asc_rt/ascendc_runtime.cpp, HEAD 82b89a15; the same constants
// in the torch_npu wheel's profiling/aprof_pub.h). MsprofReportApi drops it when nobody profiles.
// What the kernel is called on the device's track is reported by the launch itself.
#include "profiling.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "cann/symbols.h"

namespace ascend_moe {
namespace {

constexpr uint16_t kMagic = 0x5a5a;
constexpr uint16_t kNodeLevel = 10000;
constexpr uint32_t kNodeLaunch = 5;

bool HasProfiler() {
    const cann::Symbols& c = cann::Cann();
    static const bool has =
        cann::Missing(c.MsprofReportApi, c.MsprofGetHashId, c.MsprofSysCycleTime).empty();
    return has;
}

}  // namespace

Range::Range(const char* name) : name_(name) {
    if (HasProfiler()) begin_ = cann::Cann().MsprofSysCycleTime();
}

Range::~Range() {
    if (!HasProfiler()) return;
    const cann::Symbols& c = cann::Cann();
    cann::ProfiledApi api = {};
    api.magic = kMagic;
    api.level = kNodeLevel;
    api.type = kNodeLaunch;
    api.thread = static_cast<uint32_t>(syscall(SYS_gettid));
    api.begin = begin_;
    api.end = c.MsprofSysCycleTime();
    api.item = c.MsprofGetHashId(name_, strlen(name_));
    c.MsprofReportApi(uint32_t{1}, &api);
}

}  // namespace ascend_moe
