// Device memory: allocation, copies, and the wall between host and device.
//
// One anonymous file (memfd) is mapped twice. Device addresses lie in the first mapping, which
// nobody may touch: host code that dereferences a device pointer dies as it should on hardware,
// with one line that says so. The second mapping is readable and writable; only code that plays the
// device reaches it, through HostAddress. A translation is one addition. Pages are taken from the
// machine when they are first written and go back when an allocation is freed.
//
// ASCEND_MOE_VNPU_MEMORY_GB   size of the address range shared by all devices of the process (64)
// ASCEND_MOE_VNPU_STRICT=0    let the host touch device memory after all
#include "memory.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "capture.h"
#include "standin.h"

namespace standin {
namespace {

constexpr size_t kAlignment = 512;  // what aclrtMalloc promises

struct Block {
    size_t bytes;
    int device;
};

class Arena {
 public:
    // Leaked on purpose: torch_npu frees memory from static destructors. A forked child starts with
    // an empty one.
    static Arena& Get() {
        static std::once_flag at_fork;
        std::call_once(at_fork,
                       [] { pthread_atfork(nullptr, nullptr, [] { instance_ = nullptr; }); });
        static std::mutex mutex;
        std::lock_guard<std::mutex> lock(mutex);
        if (instance_ == nullptr) instance_ = new Arena();
        return *instance_;
    }

    char* Allocate(size_t bytes, int device) {
        bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
        std::unique_lock<std::shared_mutex> lock(mutex_);
        for (auto hole = holes_.begin(); hole != holes_.end(); ++hole) {
            if (hole->second < bytes) continue;
            const size_t offset = hole->first;
            const size_t rest = hole->second - bytes;
            holes_.erase(hole);
            if (rest > 0) holes_[offset + bytes] = rest;
            blocks_[offset] = {bytes, device};
            used_[device] += bytes;
            return device_base_ + offset;
        }
        return nullptr;
    }

    bool Free(const void* address) {
        std::unique_lock<std::shared_mutex> lock(mutex_);
        const auto block = blocks_.find(static_cast<const char*>(address) - device_base_);
        if (block == blocks_.end()) return false;
        size_t offset = block->first;
        size_t bytes = block->second.bytes;
        used_[block->second.device] -= bytes;
        blocks_.erase(block);
        fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
        const auto next = holes_.find(offset + bytes);
        if (next != holes_.end()) {
            bytes += next->second;
            holes_.erase(next);
        }
        const auto above = holes_.lower_bound(offset);
        if (above != holes_.begin()) {
            const auto below = std::prev(above);
            if (below->first + below->second == offset) {
                below->second += bytes;
                return true;
            }
        }
        holes_[offset] = bytes;
        return true;
    }

    bool Contains(const void* address) const {
        const char* p = static_cast<const char*>(address);
        if (p >= device_base_ && p < device_base_ + bytes_) return true;
        std::shared_lock<std::shared_mutex> lock(mutex_);
        return FindWindow(p) != windows_.end();
    }

    void* Translate(const void* address, size_t bytes) const {
        const char* p = static_cast<const char*>(address);
        std::shared_lock<std::shared_mutex> lock(mutex_);
        if (p >= device_base_ && p < device_base_ + bytes_) {
            const size_t offset = p - device_base_;
            auto block = blocks_.upper_bound(offset);
            if (block == blocks_.begin()) return nullptr;
            --block;
            return offset + bytes <= block->first + block->second.bytes ? host_base_ + offset
                                                                        : nullptr;
        }
        const auto window = FindWindow(p);
        if (window == windows_.end() || p + bytes > window->first + window->second.bytes)
            return nullptr;
        return window->second.host + (p - window->first);
    }

    void* MapWindow(void* host, size_t bytes) {
        void* address =
            mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (address == MAP_FAILED) return nullptr;
        std::unique_lock<std::shared_mutex> lock(mutex_);
        windows_[static_cast<char*>(address)] = {static_cast<char*>(host), bytes};
        return address;
    }

    void UnmapWindow(void* address) {
        std::unique_lock<std::shared_mutex> lock(mutex_);
        const auto window = windows_.find(static_cast<char*>(address));
        if (window == windows_.end()) return;
        munmap(address, window->second.bytes);
        windows_.erase(window);
    }

    size_t Used(int device) {
        std::shared_lock<std::shared_mutex> lock(mutex_);
        return used_[device];
    }
    size_t Total() const { return bytes_; }

 private:
    struct MappedWindow {
        char* host;
        size_t bytes;
    };

    Arena() : bytes_(static_cast<size_t>(IntegerOption("ASCEND_MOE_VNPU_MEMORY_GB", 64)) << 30) {
        const bool strict = IntegerOption("ASCEND_MOE_VNPU_STRICT", 1) != 0;
        file_ = memfd_create("ascend_moe_device_memory", MFD_CLOEXEC);
        if (file_ < 0 || ftruncate(file_, bytes_) != 0) Die("create");
        host_base_ = Map(PROT_READ | PROT_WRITE);
        device_base_ = Map(strict ? PROT_NONE : PROT_READ | PROT_WRITE);
        holes_[0] = bytes_;
        if (strict) ExplainFaults();
    }

    char* Map(int protection) {
        void* base = mmap(nullptr, bytes_, protection, MAP_SHARED | MAP_NORESERVE, file_, 0);
        if (base == MAP_FAILED) Die("map");
        return static_cast<char*>(base);
    }

    [[noreturn]] static void Die(const char* what) {
        fprintf(stderr,
                "[virtual NPU] cannot %s device memory: %s (ASCEND_MOE_VNPU_MEMORY_GB makes it "
                "smaller)\n",
                what, strerror(errno));
        abort();
    }

    std::map<char*, MappedWindow>::const_iterator FindWindow(const char* p) const {
        auto window = windows_.upper_bound(const_cast<char*>(p));
        if (window == windows_.begin()) return windows_.end();
        --window;
        return p < window->first + window->second.bytes ? window : windows_.end();
    }

    // Says what happened before the process dies by the fault, which is left to whoever handled it
    // before us. A forked child has that handler already.
    static void ExplainFaults() {
        static bool installed = false;
        if (installed) return;
        installed = true;
        struct sigaction action = {};
        action.sa_sigaction = [](int, siginfo_t* info, void*) {
            const Arena* arena = instance_;
            const char* p = static_cast<const char*>(info->si_addr);
            if (arena != nullptr && arena->Walls(p)) {
                const char text[] =
                    "[virtual NPU] host code touched device memory; on an NPU this address is not "
                    "in the host's memory\n";
                if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0) {
                }
            }
            sigaction(SIGSEGV, &previous_, nullptr);
            if (info->si_code <= 0) raise(SIGSEGV);  // sent by a process: it would not come again
        };
        action.sa_flags = SA_SIGINFO;
        sigaction(SIGSEGV, &action, &previous_);
    }

    // Whether an address lies behind the wall. For the fault handler: the faulting thread may hold
    // the lock, so it only tries to take it.
    bool Walls(const char* p) const {
        if (p >= device_base_ && p < device_base_ + bytes_) return true;
        std::shared_lock<std::shared_mutex> lock(mutex_, std::try_to_lock);
        return lock.owns_lock() && FindWindow(p) != windows_.end();
    }

    static Arena* instance_;
    static struct sigaction previous_;

    const size_t bytes_;
    int file_;
    char* host_base_;
    char* device_base_;
    mutable std::shared_mutex mutex_;
    std::map<size_t, size_t> holes_;  // offset -> bytes
    std::map<size_t, Block> blocks_;  // offset -> block
    std::map<int, size_t> used_;      // device -> bytes
    std::map<char*, MappedWindow> windows_;
};

Arena* Arena::instance_ = nullptr;
struct sigaction Arena::previous_ = {};

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

void* CopyOperand(const char* call, const char* which, const void* address, size_t bytes,
                  bool device_side) {
    Arena& arena = Arena::Get();
    if (device_side) {
        void* host = arena.Translate(address, bytes);
        if (host == nullptr) {
            Fail(0, "%s: the %s %p (%zu bytes) is not inside one live device allocation", call,
                 which, address, bytes);
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

aclError aclrtMallocHost(void** address, size_t bytes) {
    return posix_memalign(address, 64, bytes) == 0 ? ACL_SUCCESS : ACL_ERROR_RT_MEMORY_ALLOCATION;
}

aclError aclrtFreeHost(void* address) {
    free(address);
    return ACL_SUCCESS;
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
