// Allocation and copies of device memory, where the sides of a copy are checked as hardware would.
// Where the memory lies: arena.h.
#include "memory.h"

#include <cstring>

#include "arena.h"
#include "capture.h"
#include "standin.h"

namespace standin {
namespace {

struct Sides {
    bool source_on_device;
    bool target_on_device;
};

Sides SidesOf(aclrtMemcpyKind kind, const void* target, const void* source) {
    switch (kind) {
        case ACL_MEMCPY_HOST_TO_HOST:
            return {false, false};
        case ACL_MEMCPY_HOST_TO_DEVICE:
        case ACL_MEMCPY_HOST_TO_BUF_TO_DEVICE:
            return {false, true};
        case ACL_MEMCPY_DEVICE_TO_HOST:
            return {true, false};
        case ACL_MEMCPY_DEVICE_TO_DEVICE:
        case ACL_MEMCPY_INNER_DEVICE_TO_DEVICE:
        case ACL_MEMCPY_INTER_DEVICE_TO_DEVICE:
            return {true, true};
        default:
            return {Arena::Get().Contains(source), Arena::Get().Contains(target)};
    }
}

int ResolveCopy(const char* call, void*& target, size_t capacity, const void*& source, size_t bytes,
                aclrtMemcpyKind kind) {
    if (bytes > capacity) {
        return Fail(ACL_ERROR_RT_PARAM_INVALID, "%s: %zu bytes do not fit into %zu", call, bytes,
                    capacity);
    }
    if (bytes == 0) return ACL_SUCCESS;
    const Sides sides = SidesOf(kind, target, source);
    target = CopyOperand(call, "target", target, bytes, sides.target_on_device);
    source = target == nullptr ? nullptr
                               : CopyOperand(call, "source", source, bytes, sides.source_on_device);
    return source == nullptr ? ACL_ERROR_RT_PARAM_INVALID : ACL_SUCCESS;
}

aclError Allocate(const char* call, void** address, size_t bytes) {
    if (CurrentDevice() < 0)
        return Fail(ACL_ERROR_RT_CONTEXT_NULL, "%s: this thread has no device yet", call);
    if (bytes == 0) return Fail(ACL_ERROR_RT_PARAM_INVALID, "%s: 0 bytes", call);
    *address = Arena::Get().Allocate(bytes, CurrentDevice());
    if (*address != nullptr) return ACL_SUCCESS;
    return Fail(ACL_ERROR_RT_MEMORY_ALLOCATION, "%s: %zu bytes, but %zu of %zu are in use", call,
                bytes, Arena::Get().Used(CurrentDevice()), Arena::Get().Total());
}

}  // namespace

void* HostAddress(const void* device_address, size_t bytes) {
    return Arena::Get().Translate(device_address, bytes);
}
void* MapWindow(void* host, size_t bytes) { return Arena::Get().MapWindow(host, bytes); }
void UnmapWindow(void* device_address) { Arena::Get().UnmapWindow(device_address); }
bool BehindCard(const void* device_address) { return Arena::Get().BehindCard(device_address); }

void* CopyOperand(const char* call, const char* which, const void* address, size_t bytes,
                  bool device_side) {
    Arena& arena = Arena::Get();
    if (device_side) {
        void* host = arena.Translate(address, bytes);
        if (host == nullptr && arena.BehindCard(address)) {
            Fail(
                0,
                "%s: the %s %p is the HCCL window of a rank in another server, which is not mapped "
                "here: only RDMA reaches it",
                call, which, address);
        } else if (host == nullptr) {
            Fail(0, "%s: the %s %p (%zu bytes) is not inside one live device allocation", call,
                 which, address, bytes);
        } else if (arena.OnlyForKernels(address)) {
            Fail(0, "%s: the %s %p is registered host memory, which only kernels may use", call,
                 which, address);
            return nullptr;
        }
        return host;
    }
    if (address == nullptr || arena.Contains(address)) {
        Fail(0, "%s: the %s %p should be host memory and is not", call, which, address);
        return nullptr;
    }
    return const_cast<void*>(address);
}

}  // namespace standin

using standin::Arena;
using standin::Fail;

extern "C" {

aclError aclrtMalloc(void** address, size_t bytes, aclrtMemMallocPolicy) {
    return standin::Allocate("aclrtMalloc", address, bytes);
}

aclError aclrtMallocAlign32(void** address, size_t bytes, aclrtMemMallocPolicy) {
    return standin::Allocate("aclrtMallocAlign32", address, bytes);
}

aclError aclrtFree(void* address) {
    if (Arena::Get().Free(address)) return ACL_SUCCESS;
    return Fail(ACL_ERROR_RT_PARAM_INVALID, "aclrtFree: %p was not allocated", address);
}

aclError aclrtGetMemInfo(aclrtMemAttr, size_t* free_bytes, size_t* total) {
    *total = Arena::Get().Total();
    *free_bytes = *total - Arena::Get().Used(standin::CurrentDevice());
    return ACL_SUCCESS;
}

aclError aclrtPointerGetAttributes(const void* address, aclrtPtrAttributes* attributes) {
    memset(attributes, 0, sizeof(*attributes));
    const bool device = Arena::Get().Contains(address);
    attributes->location.type =
        device ? ACL_MEM_LOCATION_TYPE_DEVICE : ACL_MEM_LOCATION_TYPE_UNREGISTERED;
    return ACL_SUCCESS;
}

// Does not wait for any stream, as on hardware: whoever reads a result must have synchronised
// before.
aclError aclrtMemcpy(void* target, size_t capacity, const void* source, size_t bytes,
                     aclrtMemcpyKind kind) {
    const int refused = standin::RefuseDuringCapture("aclrtMemcpy");
    if (refused != ACL_SUCCESS) return refused;
    const int error = standin::ResolveCopy("aclrtMemcpy", target, capacity, source, bytes, kind);
    if (error == ACL_SUCCESS && bytes > 0) memmove(target, source, bytes);
    return error;
}

aclError aclrtMemcpyAsync(void* target, size_t capacity, const void* source, size_t bytes,
                          aclrtMemcpyKind kind, aclrtStream stream) {
    const int error =
        standin::ResolveCopy("aclrtMemcpyAsync", target, capacity, source, bytes, kind);
    if (error != ACL_SUCCESS || bytes == 0) return error;
    return standin::Launch(stream, "aclrtMemcpyAsync", [=] {
        memmove(target, source, bytes);
        return ACL_SUCCESS;
    });
}

aclError aclrtMemset(void* address, size_t capacity, int32_t value, size_t bytes) {
    const int refused = standin::RefuseDuringCapture("aclrtMemset");
    if (refused != ACL_SUCCESS) return refused;
    void* host = bytes > capacity ? nullptr : standin::HostAddress(address, bytes);
    if (host == nullptr)
        return Fail(ACL_ERROR_RT_PARAM_INVALID, "aclrtMemset: %zu bytes at %p", bytes, address);
    memset(host, value, bytes);
    return ACL_SUCCESS;
}

aclError aclrtMemsetAsync(void* address, size_t capacity, int32_t value, size_t bytes,
                          aclrtStream stream) {
    void* host = bytes > capacity ? nullptr : standin::HostAddress(address, bytes);
    if (host == nullptr)
        return Fail(ACL_ERROR_RT_PARAM_INVALID, "aclrtMemsetAsync: %zu bytes at %p", bytes,
                    address);
    return standin::Launch(stream, "aclrtMemsetAsync", [=] {
        memset(host, value, bytes);
        return ACL_SUCCESS;
    });
}

}  // extern "C"
