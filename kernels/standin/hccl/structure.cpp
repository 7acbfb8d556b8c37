// See structure.h.
#include "structure.h"

#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "acl/acl.h"
#include "standin.h"

namespace standin {

uint64_t DeviceMemory(size_t bytes) {
    void* address = nullptr;
    if (aclrtMalloc(&address, bytes, ACL_MEM_MALLOC_HUGE_FIRST) != ACL_SUCCESS) return 0;
    return reinterpret_cast<uint64_t>(
        address);  // never used before, or punched out when it was freed
}

void Structure::Spoil() {
    const char* patches = getenv("ASCEND_MOE_VNPU_HCCL_PATCH");
    std::stringstream list(patches == nullptr ? "" : patches);
    for (std::string patch; std::getline(list, patch, ',');) {
        const size_t end = patch.find(':');
        size_t offset = 0;
        size_t bytes = 0;
        uint64_t value = 0;
        if (patch.substr(0, end) != name_ || end == std::string::npos) continue;
        if (sscanf(patch.c_str() + end, ":%zu:%zu:%lu", &offset, &bytes, &value) == 3 &&
            bytes <= sizeof(value) && offset + bytes <= size())
            memcpy(bytes_.data() + offset, &value, bytes);
        else
            fprintf(stderr, "[virtual NPU] ASCEND_MOE_VNPU_HCCL_PATCH: %s does not fit\n",
                    patch.c_str());
    }
}

uint64_t Structure::ToDevice() {
    Spoil();
    const uint64_t address = DeviceMemory(size());
    if (address != 0)
        aclrtMemcpy(reinterpret_cast<void*>(address), size(), bytes_.data(), size(),
                    ACL_MEMCPY_HOST_TO_DEVICE);
    return address;
}

}  // namespace standin
