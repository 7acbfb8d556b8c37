// What FindWindows and FindWindowsAndQueues find, for tests and scripts that look into an
// installation. Collective, like these. `base` has room for `capacity` addresses, `provider` for 32
// bytes. They return an aclnn status; the text is left to aclGetRecentErrMsg.
#include <algorithm>
#include <cstring>

#include "report.h"
#include "windows.h"

namespace ascend_moe {
namespace {

int Tell(int status, const Windows& found, uint32_t* rank, uint32_t* ranks, uint64_t* bytes,
         uint64_t* base, uint32_t capacity) {
    if (status != ACL_SUCCESS) return status == kNoWindows ? kInnerError : status;
    if (found.ranks > capacity)
        return Fail(kBadParameter, "%u ranks, there is room for %u", found.ranks, capacity);
    *rank = found.rank;
    *ranks = found.ranks;
    *bytes = found.bytes;
    std::copy(found.base.begin(), found.base.end(), base);
    return ACL_SUCCESS;
}

}  // namespace
}  // namespace ascend_moe

extern "C" __attribute__((visibility("default"))) int ascend_moe_windows(
    const char* group, aclrtStream stream, uint32_t* rank, uint32_t* ranks, uint64_t* bytes,
    uint64_t* base, uint32_t capacity, char* provider) {
    ascend_moe::Windows found;
    int status = ascend_moe::FindWindows(group, stream, &found);
    status = ascend_moe::Tell(status, found, rank, ranks, bytes, base, capacity);
    if (status != ACL_SUCCESS) return status;
    strncpy(provider, found.provider.c_str(), 31);
    provider[31] = '\0';
    return ACL_SUCCESS;
}

// `card` takes a CardContext.
extern "C" __attribute__((visibility("default"))) int ascend_moe_windows_and_queues(
    const char* group, aclrtStream stream, uint32_t* rank, uint32_t* ranks, uint64_t* bytes,
    uint64_t* base, uint32_t capacity, void* card) {
    ascend_moe::Windows found;
    int status = ascend_moe::FindWindowsAndQueues(group, stream, &found);
    status = ascend_moe::Tell(status, found, rank, ranks, bytes, base, capacity);
    if (status == ACL_SUCCESS) memcpy(card, &found.card, sizeof(found.card));
    return status;
}
