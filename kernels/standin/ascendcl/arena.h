// The memory of the devices, and every address under which a device knows some.
//
// One anonymous file (memfd) is mapped twice. Device addresses lie in the first mapping, which
// nobody may touch: host code that dereferences a device pointer dies as it should on hardware,
// with one line that says so. The second mapping is readable and writable; only code that plays the
// device reaches it, through HostAddress. A translation is one addition. Pages are taken from the
// machine when they are first written and go back when an allocation is freed.
//
// Beside these two lie windows (memory of the host with a device address: HCCL's, registered host
// memory; addresses without memory: HCCL's windows of other servers) and reserved address space
// (reservations.h).
//
// ASCEND_MOE_VNPU_MEMORY_GB   size of the memory shared by all devices of the process (64)
// ASCEND_MOE_VNPU_STRICT=0    let the host touch device memory after all
#pragma once

#include <signal.h>

#include <map>
#include <optional>
#include <shared_mutex>

#include "reservations.h"

namespace standin {

constexpr size_t kAlignment = 512;  // what aclrtMalloc promises

class Arena {
 public:
    // A forked child starts with an empty one.
    static Arena& Get();

    // Null when there is not enough.
    char* Allocate(size_t bytes, int device);
    bool Free(const void* address);

    // Memory without an address of its own, for aclrtMapMem: where it lies in the file.
    std::optional<size_t> AllocatePhysical(size_t bytes, int device) {
        return Take(bytes, device, kPage);
    }
    void FreePhysical(size_t offset);
    Reservations& reservations() { return reservations_; }

    bool Contains(const void* address) const;
    // Null when [address, + bytes) is not inside one live allocation, window or mapped range.
    void* Translate(const void* address, size_t bytes) const;

    // Gives memory of the host a device address; if asked, one that only kernels may use. Without
    // memory it is one of another server, which only a network card reaches.
    void* MapWindow(void* host, size_t bytes, bool only_kernels = false);
    void UnmapWindow(void* address);
    bool OnlyForKernels(const void* address) const;
    bool BehindCard(const void* address) const;

    size_t Used(int device);
    size_t Total() const { return bytes_; }

 private:
    struct Block {
        size_t bytes;
        int device;
    };
    struct MappedWindow {
        char* host;  // null: behind a network card
        size_t bytes;
        bool only_kernels;
    };

    Arena();
    char* Map(int protection);
    std::optional<size_t> Take(size_t bytes, int device, size_t alignment);
    void Release(std::map<size_t, Block>::const_iterator block);
    std::map<char*, MappedWindow>::const_iterator FindWindow(const char* p) const;
    static void ExplainFaults();
    const char* WallBefore(const char* p) const;

    static Arena* instance_;
    static struct sigaction previous_;

    const size_t bytes_;
    const bool strict_;
    const int file_;
    char* host_base_;
    char* device_base_;
    mutable std::shared_mutex mutex_;
    std::map<size_t, size_t> holes_;  // offset -> bytes
    std::map<size_t, Block> blocks_;  // offset -> block
    std::map<int, size_t> used_;      // device -> bytes
    std::map<char*, MappedWindow> windows_;
    Reservations reservations_;
};

}  // namespace standin
