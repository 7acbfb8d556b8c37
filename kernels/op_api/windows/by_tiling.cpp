// See by_tiling.h.
#include "windows/by_tiling.h"

#include <cstdio>
#include <cstring>

namespace ascend_moe {
namespace {

using cann::Cann;
using cann::kHcclSuccess;

bool Begins(const std::string& version, const char* known) {
    const size_t length = strlen(known);
    return version.compare(0, length, known) == 0 &&
           (version.size() == length || version[length] == '.');
}

cann::Tiling MakeTiling(const std::string& group, uint32_t op, const char* algorithm) {
    cann::Tiling tiling = {};
    tiling.head.version = cann::kTilingVersion;
    tiling.head.count = 1;
    tiling.head.offset[0] = offsetof(cann::Tiling, task);
    tiling.head.comm_blocks = 48;
    tiling.head.device_type = 4;
    tiling.task.version = 1;
    tiling.task.engine = cann::kTilingEngineAiv;
    tiling.task.op = op;
    group.copy(tiling.task.group, sizeof(tiling.task.group) - 1);
    strncpy(tiling.task.algorithm, algorithm, sizeof(tiling.task.algorithm) - 1);
    return tiling;
}

}  // namespace

Attempt CheckHcclVersion(const std::vector<const char*>& known) {
    const std::string version = cann::HcclVersion();
    std::string names;
    for (size_t i = 0; i < known.size(); ++i) {
        if (Begins(version, known[i])) return Attempt::Found();
        names += (i == 0 ? "" : ", ") + std::string(known[i]);
    }
    return Attempt::Absent("the private structures of HCCL " +
                           (version.empty() ? "of unknown version" : version) + " are not known (" +
                           names + " are)");
}

Attempt AskByTiling(const std::string& group, aclrtStream stream, uint32_t op,
                    const char* algorithm, Resource* resource) {
    const cann::Symbols& c = Cann();
    auto result = c.HcomGetCommHandleByGroup(group.c_str(), &resource->comm);
    if (result != kHcclSuccess) return Attempt::Of("HcomGetCommHandleByGroup", result);
    cann::Tiling tiling = MakeTiling(group, op, algorithm);
    void* structure = nullptr;
    result = c.HcclAllocComResourceByTiling(resource->comm, stream, &tiling, &structure);
    if (result != kHcclSuccess) return Attempt::Of("HcclAllocComResourceByTiling", result);
    if (structure == nullptr) return Attempt::Failed("HcclAllocComResourceByTiling gave nothing");
    resource->structure = reinterpret_cast<uint64_t>(structure);
    return Attempt::Found();
}

bool ReadDevice(uint64_t from, void* to, size_t bytes) {
    return aclrtMemcpy(to, bytes, reinterpret_cast<const void*>(from), bytes,
                       ACL_MEMCPY_DEVICE_TO_HOST) == ACL_SUCCESS;
}

std::string Hex(uint64_t value) {
    char text[24];
    snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

}  // namespace ascend_moe
