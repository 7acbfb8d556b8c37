// Virtual memory: address space, physical memory, and what is mapped where.
//
// After hicann/runtime, 681ef7610: docs/zh/api_ref/11-04_virtual_memory_management.md for what a
// call takes, src/acl/aclrt_impl/memory.cpp for what it refuses. Sharing with other processes
// (aclrtMemExportToShareableHandle and the rest of it) is not played.
#include <cstring>

#include "arena.h"
#include "standin.h"

namespace standin {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr int kMemHuge1G = 14;  // ACL_MEM_HUGE1G, which headers of older wheels do not have
constexpr size_t kHuge1GPage = size_t{1} << 30;

size_t Granularity(const aclrtPhysicalMemProp& prop) {
    const bool large = prop.memAttr == ACL_HBM_MEM_HUGE1G || prop.memAttr == kMemHuge1G;
    return large ? kHuge1GPage : kHugePage;
}

// What is asked for must be memory of a device that there is.
aclError CheckProperties(const char* call, const aclrtPhysicalMemProp* prop) {
    if (prop == nullptr) return Fail(ACL_ERROR_INVALID_PARAM, "%s: prop is null", call);
    if (prop->location.type != ACL_MEM_LOCATION_TYPE_DEVICE) {
        return Fail(ACL_ERROR_RT_FEATURE_NOT_SUPPORT,
                    "%s: prop.location.type=%d; only memory of a device is played here", call,
                    prop->location.type);
    }
    uint32_t devices = 0;
    aclrtGetDeviceCount(&devices);
    if (prop->location.id < devices) return ACL_SUCCESS;
    return Fail(ACL_ERROR_RT_INVALID_DEVICEID, "%s: prop.location.id=%u, but there are %u devices",
                call, prop->location.id, devices);
}

// What this library hands out as aclrtDrvMemHandle.
Physical* Of(aclrtDrvMemHandle handle) { return reinterpret_cast<Physical*>(handle); }

void FreeIfUnused(Physical* memory) {
    if (!memory->released || memory->mappings > 0) return;
    Arena::Get().FreePhysical(memory->offset);
    delete memory;
}

}  // namespace
}  // namespace standin

using standin::Arena;
using standin::Fail;
using standin::Physical;

extern "C" {

// Flag 1 is taken for the sake of older callers, as there.
aclError aclrtReserveMemAddress(void** address, size_t bytes, size_t alignment, void* expected,
                                uint64_t flags) {
    if (address == nullptr || bytes == 0 || flags > 1) {
        return Fail(ACL_ERROR_INVALID_PARAM,
                    "aclrtReserveMemAddress: virPtr=%p, size=%zu, flags=%zu; an address, a size "
                    "above 0 and flags 0 are needed",
                    static_cast<void*>(address), bytes, size_t{flags});
    }
    if (alignment != 0 || expected != nullptr) {
        return Fail(ACL_ERROR_RT_FEATURE_NOT_SUPPORT,
                    "aclrtReserveMemAddress: alignment=%zu, expectPtr=%p; only 0 is played here",
                    alignment, expected);
    }
    *address = Arena::Get().reservations().Reserve(bytes);
    if (*address != nullptr) return ACL_SUCCESS;
    return Fail(ACL_ERROR_RT_MEMORY_ALLOCATION,
                "aclrtReserveMemAddress: no address space of %zu bytes is left", bytes);
}

aclError aclrtReleaseMemAddress(void* address) {
    return Arena::Get().reservations().Release(static_cast<char*>(address));
}

aclError aclrtMallocPhysical(aclrtDrvMemHandle* handle, size_t bytes,
                             const aclrtPhysicalMemProp* prop, uint64_t flags) {
    const aclError refused = standin::CheckProperties("aclrtMallocPhysical", prop);
    if (refused != ACL_SUCCESS) return refused;
    if (handle == nullptr || bytes == 0 || flags != 0) {
        return Fail(ACL_ERROR_INVALID_PARAM,
                    "aclrtMallocPhysical: handle=%p, size=%zu, flags=%zu; a handle, a size above 0 "
                    "and flags 0 are needed",
                    static_cast<void*>(handle), bytes, size_t{flags});
    }
    const int device = static_cast<int>(prop->location.id);
    const size_t page = standin::Granularity(*prop);
    Arena& arena = Arena::Get();
    const auto offset = arena.AllocatePhysical((bytes + page - 1) / page * page, device);
    if (!offset.has_value()) {
        return Fail(ACL_ERROR_RT_MEMORY_ALLOCATION,
                    "aclrtMallocPhysical: %zu bytes, but %zu of %zu are in use", bytes,
                    arena.Used(device), arena.Total());
    }
    *handle = reinterpret_cast<aclrtDrvMemHandle>(new Physical{*offset, bytes, device});
    return ACL_SUCCESS;
}

// Memory that is still mapped stays until it is not.
aclError aclrtFreePhysical(aclrtDrvMemHandle handle) {
    if (handle == nullptr)
        return Fail(ACL_ERROR_INVALID_PARAM, "aclrtFreePhysical: handle is null");
    Physical* memory = standin::Of(handle);
    memory->released = true;
    standin::FreeIfUnused(memory);
    return ACL_SUCCESS;
}

aclError aclrtMapMem(void* address, size_t bytes, size_t offset, aclrtDrvMemHandle handle,
                     uint64_t flags) {
    if (address == nullptr || handle == nullptr || offset != 0 || flags != 0) {
        return Fail(ACL_ERROR_INVALID_PARAM,
                    "aclrtMapMem: virPtr=%p, handle=%p, offset=%zu, flags=%zu; an address, a "
                    "handle, offset 0 and flags 0 are needed",
                    address, static_cast<void*>(handle), offset, size_t{flags});
    }
    Physical* memory = standin::Of(handle);
    if (bytes != memory->bytes || bytes % standin::kHugePage != 0) {
        return Fail(ACL_ERROR_RT_PARAM_INVALID,
                    "aclrtMapMem: size=%zu; must be that of aclrtMallocPhysical, %zu, and a "
                    "multiple of %zu",
                    bytes, memory->bytes, standin::kHugePage);
    }
    return Arena::Get().reservations().MapPiece(static_cast<char*>(address), memory);
}

aclError aclrtUnmapMem(void* address) {
    Physical* memory = nullptr;
    const aclError error =
        Arena::Get().reservations().UnmapPiece(static_cast<char*>(address), &memory);
    if (error == ACL_SUCCESS) standin::FreeIfUnused(memory);
    return error;
}

aclError aclrtMemGetAllocationGranularity(aclrtPhysicalMemProp* prop, aclrtMemGranularityOptions,
                                          size_t* granularity) {
    const aclError refused = standin::CheckProperties("aclrtMemGetAllocationGranularity", prop);
    if (refused != ACL_SUCCESS) return refused;
    *granularity = standin::Granularity(*prop);
    return ACL_SUCCESS;
}

}  // extern "C"
