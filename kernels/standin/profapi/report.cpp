// libprofapi: where torch_npu, CANN's operators and ours report what they do to msprof.
//
// Nobody profiles here, so records are dropped, as on hardware without msprof. For tests only,
// ASCEND_MOE_VNPU_MSPROF=FILE writes each as a line of JSON.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <ctime>

namespace {

// MsprofApi, aprof_pub.h: 40 bytes.
struct Api {
    uint16_t magic, level;
    uint32_t type, thread, reserved;
    uint64_t begin, end, item;
};

// One write per line, because threads and ranks share the file.
template <typename... Values>
void Write(const char* format, Values... values) {
    static const char* path = getenv("ASCEND_MOE_VNPU_MSPROF");
    FILE* file = path == nullptr ? nullptr : fopen(path, "a");
    if (file == nullptr) return;
    fprintf(file, format, values...);
    fclose(file);
}

}  // namespace

extern "C" {

int32_t MsprofRegTypeInfo(uint16_t level, uint32_t type, const char* name) {
    Write("{\"registered\": \"%s\", \"level\": %u, \"type\": %u}\n", name, level, type);
    return 0;
}

int32_t MsprofReportApi(uint32_t, const void* record) {
    const Api& api = *static_cast<const Api*>(record);
    Write("{\"magic\": %u, \"level\": %u, \"type\": %u, \"item\": %" PRIu64 ", \"took\": %" PRIu64
          "}\n",
          api.magic, api.level, api.type, api.item, api.end - api.begin);
    return 0;
}

uint64_t MsprofSysCycleTime() {
    timespec now = {};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

}  // extern "C"
