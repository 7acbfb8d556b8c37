// HcclAllocComResourceByTiling: the call behind HCCL's own communicating operators that builds
// links and returns a private structure in device memory. What tiling.cpp and rdma.cpp share.
#pragma once

#include <string>
#include <vector>

#include "cann/version.h"
#include "windows/provider.h"

namespace ascend_moe {

// Absent unless the version of HCCL begins with one of these: "8.5" is 8.5.0 and 8.5.RC1, not 8.50.
Attempt CheckHcclVersion(const std::vector<const char*>& known);

// One task of this kind on vector cores. Collective. The communicator, and where the structure is.
struct Resource {
    cann::HcclComm comm = nullptr;
    uint64_t structure = 0;
};
Attempt AskByTiling(const std::string& group, aclrtStream stream, uint32_t op,
                    const char* algorithm, Resource* resource);

bool ReadDevice(uint64_t from, void* to, size_t bytes);

std::string Hex(uint64_t value);

}  // namespace ascend_moe
