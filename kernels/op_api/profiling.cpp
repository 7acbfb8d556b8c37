// See profiling.h.
//
// CANN reports the phases of an aclnn operator at level acl, each name under a type of its own that
// is registered once; a kernel is reported at level node by the launch itself, so nothing else may
// be (mirror-cann/opbase:src/nnopbase/composite_op/aclnn_engine/op_dfx.cpp:158 and 1565, v9.0.0;
// :143 and 1546, v8.5.0). MsprofReportApi drops the record when nobody profiles.
#include "profiling.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <map>
#include <mutex>
#include <string>

#include "cann/symbols.h"

namespace ascend_moe {
namespace {

// hicann/runtime:pkg_inc/profiling/aprof_pub.h (v9.0.0), MSPROF_REPORT_ACL_LEVEL and the range of
// types of aclnn. nnopbase counts up from its beginning, one for every operator, and never comes
// this far.
constexpr uint16_t kMagic = 0x5a5a;
constexpr uint16_t kAclLevel = 20000;
constexpr uint32_t kFirstType = 0x05e000;

bool HasProfiler() {
    const cann::Symbols& c = cann::Cann();
    static const bool has =
        cann::Missing(c.MsprofRegTypeInfo, c.MsprofReportApi, c.MsprofSysCycleTime).empty();
    return has;
}

uint32_t TypeOf(const char* name) {
    static std::mutex mutex;
    static auto* types = new std::map<std::string, uint32_t>();
    std::lock_guard<std::mutex> lock(mutex);
    const auto [found, first] = types->try_emplace(name, kFirstType + types->size());
    if (first) cann::Cann().MsprofRegTypeInfo(kAclLevel, found->second, name);
    return found->second;
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
    api.level = kAclLevel;
    api.type = TypeOf(name_);
    api.thread = static_cast<uint32_t>(syscall(SYS_gettid));
    api.begin = begin_;
    api.end = c.MsprofSysCycleTime();
    c.MsprofReportApi(uint32_t{1}, &api);
}

}  // namespace ascend_moe
