// The HCCL windows of a group, as mapped into this process.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "acl/acl.h"

namespace ascend_moe {

struct Windows {
    uint32_t rank = 0, ranks = 0;
    uint64_t bytes = 0;          // of one rank's window; what is usable in all of them
    std::vector<uint64_t> base;  // device address per rank
    std::vector<uint64_t>
        control;  // private registered memory for control words per rank where the provider has it
    std::string provider;
    uint32_t per_buffsize = 2;  // a window is so many times HCCL_BUFFSIZE
    const void* communicator = nullptr;
};
int FindWindows(const std::string& group, aclrtStream stream, Windows* found);
// Whether the name still is the communicator that the windows are of.
bool StillThere(const std::string& group, const Windows& windows);
}  // namespace ascend_moe
