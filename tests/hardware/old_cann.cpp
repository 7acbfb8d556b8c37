// A libopapi.so of a CANN that ends at V2: it writes down what it was asked.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

void Note(const char* function, const char* group, int64_t experts, int64_t quant,
          const void* last) {
    FILE* file = fopen(getenv("OLD_CANN_NOTES"), "a");
    fprintf(file, "%s %s %ld %ld %p\n", function, group, static_cast<long>(experts),
            static_cast<long>(quant), last);
    fclose(file);
}

}  // namespace

EXPORT int aclnnMoeDistributeDispatchV2GetWorkspaceSize(
    const void*, const void*, const void*, const void*, const void*, const char* group_ep, int64_t,
    int64_t, int64_t moe_expert_num, const char*, int64_t, int64_t, int64_t, int64_t, int64_t,
    int64_t quant_mode, int64_t, int64_t, const char*, void*, void*, void*, void*, void*, void*,
    void* expand_scales, uint64_t* workspace_bytes, void** executor) {
    Note("dispatch one", group_ep, moe_expert_num, quant_mode, expand_scales);
    *workspace_bytes = 16;
    *executor = reinterpret_cast<void*>(0x1234);
    return 0;
}

EXPORT int aclnnMoeDistributeDispatchV2(void*, uint64_t bytes, void* executor, void*) {
    Note("dispatch two", "-", static_cast<int64_t>(bytes), 0, executor);
    return 0;
}

EXPORT int aclnnMoeDistributeCombineV2GetWorkspaceSize(
    const void*, const void*, const void*, const void*, const void*, const void*, const void*,
    const void*, const void*, const void*, const void*, const void*, const char* group_ep, int64_t,
    int64_t, int64_t moe_expert_num, const char*, int64_t, int64_t, int64_t, int64_t, int64_t,
    int64_t, int64_t, int64_t comm_quant_mode, int64_t, const char*, void* x,
    uint64_t* workspace_bytes, void** executor) {
    Note("combine one", group_ep, moe_expert_num, comm_quant_mode, x);
    *workspace_bytes = 0;
    *executor = nullptr;
    return 0;
}

EXPORT int aclnnMoeDistributeCombineV2(void*, uint64_t, void*, void*) { return 0; }
