// Memory of the host that a device may use: allocated for that, or registered afterwards.
//
// After hicann/runtime, 681ef7610: docs/zh/api_ref/11-02_host_memory_management.md and, for what a
// registration refuses, src/runtime/api/impl/api_error.cc. The device address is for kernels:
// copies refuse it.
#include <cstdlib>
#include <map>
#include <mutex>

#include "arena.h"
#include "standin.h"

namespace standin {
namespace {

// Flags of aclrtHostRegisterV2 and error codes; headers of older wheels do not have them.
constexpr uint32_t kMapped = 0x2;
constexpr uint32_t kIoMemory = 0x4;
constexpr uint32_t kReadOnly = 0x8;
constexpr uint32_t kPinned = 0x10000000;
constexpr int kAlreadyRegistered = 507910;
constexpr int kNotRegistered = 507911;

struct Registered {
    uint64_t bytes;
    void* device_address;  // null when only pinned
};

std::mutex mutex;
std::map<char*, Registered> registered;

bool Overlaps(const char* p, uint64_t bytes) {
    auto range = registered.lower_bound(const_cast<char*>(p) + bytes);
    if (range == registered.begin()) return false;
    --range;
    return range->first + range->second.bytes > p;
}

// `device_address` is null when the memory is only to be pinned, which changes nothing here.
aclError Register(const char* call, void* host, uint64_t bytes, void** device_address) {
    const bool mapped = device_address != nullptr;
    if (host == nullptr || bytes == 0)
        return Fail(ACL_ERROR_INVALID_PARAM, "%s: ptr=%p, size=%zu", call, host, size_t{bytes});
    if (CurrentDevice() < 0)
        return Fail(ACL_ERROR_RT_CONTEXT_NULL, "%s: this thread has no device yet", call);
    if (Arena::Get().Contains(host))
        return Fail(ACL_ERROR_RT_PARAM_INVALID, "%s: %p is memory of a device", call, host);
    if (mapped && reinterpret_cast<uintptr_t>(host) % kPage != 0)
        return Fail(ACL_ERROR_RT_PARAM_INVALID, "%s: %p does not begin a page of 4 KB", call, host);
    std::lock_guard<std::mutex> lock(mutex);
    if (Overlaps(static_cast<char*>(host), bytes)) {
        return Fail(kAlreadyRegistered, "%s: a part of [%p, + %zu) has already been registered",
                    call, host, size_t{bytes});
    }
    if (mapped) *device_address = Arena::Get().MapWindow(host, bytes, /*only_kernels=*/true);
    if (mapped && *device_address == nullptr)
        return Fail(ACL_ERROR_RT_MEMORY_ALLOCATION, "%s: no address space is left", call);
    registered[static_cast<char*>(host)] = {bytes, mapped ? *device_address : nullptr};
    return ACL_SUCCESS;
}

}  // namespace
}  // namespace standin

using standin::Fail;

extern "C" {

aclError aclrtMallocHost(void** address, size_t bytes) {
    return posix_memalign(address, 64, bytes) == 0 ? ACL_SUCCESS : ACL_ERROR_RT_MEMORY_ALLOCATION;
}

aclError aclrtFreeHost(void* address) {
    free(address);
    return ACL_SUCCESS;
}

aclError aclrtHostRegisterV2(void* host, uint64_t bytes, uint32_t flag) {
    using standin::kMapped, standin::kIoMemory, standin::kReadOnly, standin::kPinned;
    constexpr uint32_t known = kMapped | kIoMemory | kReadOnly | kPinned;
    if ((flag & known) == 0 || (flag & ~known) != 0) {
        return Fail(ACL_ERROR_RT_PARAM_INVALID,
                    "aclrtHostRegisterV2: flag=%#x; must be MAPPED (0x2) or PINNED (0x10000000), "
                    "or both",
                    flag);
    }
    if ((flag & (kIoMemory | kReadOnly)) != 0) {
        return Fail(ACL_ERROR_RT_FEATURE_NOT_SUPPORT,
                    "aclrtHostRegisterV2: flag=%#x; IOMEMORY and READONLY are reserved", flag);
    }
    void* device_address;
    return standin::Register("aclrtHostRegisterV2", host, bytes,
                             (flag & kMapped) != 0 ? &device_address : nullptr);
}

aclError aclrtHostRegister(void* host, uint64_t bytes, aclrtHostRegisterType type,
                           void** device_address) {
    if (device_address == nullptr)
        return Fail(ACL_ERROR_INVALID_PARAM, "aclrtHostRegister: devPtr is null");
    if (type != ACL_HOST_REGISTER_MAPPED) {
        return Fail(ACL_ERROR_RT_FEATURE_NOT_SUPPORT,
                    "aclrtHostRegister: type=%d; only ACL_HOST_REGISTER_MAPPED is played here",
                    type);
    }
    return standin::Register("aclrtHostRegister", host, bytes, device_address);
}

aclError aclrtHostGetDevicePointer(void* host, void** device_address, uint32_t flag) {
    if (device_address == nullptr || flag != 0) {
        return Fail(ACL_ERROR_INVALID_PARAM, "aclrtHostGetDevicePointer: pDevice=%p, flag=%u",
                    static_cast<void*>(device_address), flag);
    }
    std::lock_guard<std::mutex> lock(standin::mutex);
    const auto found = standin::registered.find(static_cast<char*>(host));
    if (found == standin::registered.end() || found->second.device_address == nullptr) {
        return Fail(ACL_ERROR_RT_PARAM_INVALID,
                    "aclrtHostGetDevicePointer: %p has not been registered for a device address",
                    host);
    }
    *device_address = found->second.device_address;
    return ACL_SUCCESS;
}

aclError aclrtHostUnregister(void* host) {
    std::lock_guard<std::mutex> lock(standin::mutex);
    const auto found = standin::registered.find(static_cast<char*>(host));
    if (found == standin::registered.end()) {
        return Fail(standin::kNotRegistered, "aclrtHostUnregister: %p has not been registered",
                    host);
    }
    if (found->second.device_address != nullptr)
        standin::Arena::Get().UnmapWindow(found->second.device_address);
    standin::registered.erase(found);
    return ACL_SUCCESS;
}

}  // extern "C"
