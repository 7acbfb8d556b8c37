// ascend_moe_windows: what FindWindows finds, for tests and scripts that look into an installation.
#include <algorithm>
#include <cstring>

#include "report.h"
#include "windows.h"

// Collective, like FindWindows. `base` has room for `capacity` addresses, `provider` for 32 bytes.
// Returns an aclnn status; the text is left to aclGetRecentErrMsg.
extern "C" __attribute__((visibility("default"))) int ascend_moe_windows(
    const char* group, aclrtStream stream, uint32_t* rank, uint32_t* ranks, uint64_t* bytes,
    uint64_t* base, uint32_t capacity, char* provider) {
    ascend_moe::Windows found;
    const int status = ascend_moe::FindWindows(group, stream, &found);
    if (status != ACL_SUCCESS)
        return status == ascend_moe::kNoWindows ? ascend_moe::kInnerError : status;
    if (found.ranks > capacity)
        return ascend_moe::Fail(ascend_moe::kBadParameter, "%u ranks, there is room for %u",
                                found.ranks, capacity);
    *rank = found.rank;
    *ranks = found.ranks;
    *bytes = found.bytes;
    std::copy(found.base.begin(), found.base.end(), base);
    strncpy(provider, found.provider.c_str(), 31);
    provider[31] = '\0';
    return ACL_SUCCESS;
}
