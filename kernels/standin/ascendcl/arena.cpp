#include "arena.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "standin.h"

namespace standin {
namespace {

[[noreturn]] void Die(const char* what) {
    fprintf(stderr,
            "[virtual NPU] cannot %s device memory: %s (ASCEND_MOE_VNPU_MEMORY_GB makes it "
            "smaller)\n",
            what, strerror(errno));
    abort();
}

int CreateFile(size_t bytes) {
    const int file = memfd_create("ascend_moe_device_memory", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, bytes) != 0) Die("create");
    return file;
}

}  // namespace

Arena* Arena::instance_ = nullptr;
struct sigaction Arena::previous_ = {};

// Leaked on purpose: torch_npu frees memory from static destructors.
Arena& Arena::Get() {
    static std::once_flag at_fork;
    std::call_once(at_fork, [] { pthread_atfork(nullptr, nullptr, [] { instance_ = nullptr; }); });
    static std::mutex mutex;
    std::lock_guard<std::mutex> lock(mutex);
    if (instance_ == nullptr) instance_ = new Arena();
    return *instance_;
}

Arena::Arena()
    : bytes_(static_cast<size_t>(IntegerOption("ASCEND_MOE_VNPU_MEMORY_GB", 64)) << 30),
      strict_(IntegerOption("ASCEND_MOE_VNPU_STRICT", 1) != 0),
      file_(CreateFile(bytes_)),
      host_base_(Map(PROT_READ | PROT_WRITE)),
      device_base_(Map(strict_ ? PROT_NONE : PROT_READ | PROT_WRITE)),
      reservations_(file_, strict_) {
    holes_[0] = bytes_;
    if (strict_) ExplainFaults();
}

char* Arena::Map(int protection) {
    void* base = mmap(nullptr, bytes_, protection, MAP_SHARED | MAP_NORESERVE, file_, 0);
    if (base == MAP_FAILED) Die("map");
    return static_cast<char*>(base);
}

std::optional<size_t> Arena::Take(size_t bytes, int device, size_t alignment) {
    bytes = (bytes + alignment - 1) / alignment * alignment;
    std::unique_lock<std::shared_mutex> lock(mutex_);
    for (auto hole = holes_.begin(); hole != holes_.end(); ++hole) {
        const size_t skipped = (alignment - hole->first % alignment) % alignment;
        if (hole->second < bytes + skipped) continue;
        const size_t offset = hole->first + skipped;
        const size_t rest = hole->second - skipped - bytes;
        if (skipped > 0) {
            hole->second = skipped;
        } else {
            holes_.erase(hole);
        }
        if (rest > 0) holes_[offset + bytes] = rest;
        blocks_[offset] = {bytes, device};
        used_[device] += bytes;
        return offset;
    }
    return std::nullopt;
}

void Arena::FreePhysical(size_t offset) {
    std::unique_lock<std::shared_mutex> lock(mutex_);
    Release(blocks_.find(offset));
}

char* Arena::Allocate(size_t bytes, int device) {
    const std::optional<size_t> offset = Take(bytes, device, kAlignment);
    return offset.has_value() ? device_base_ + *offset : nullptr;
}

bool Arena::Free(const void* address) {
    std::unique_lock<std::shared_mutex> lock(mutex_);
    const auto block = blocks_.find(static_cast<const char*>(address) - device_base_);
    if (block == blocks_.end()) return false;
    Release(block);
    return true;
}

void Arena::Release(std::map<size_t, Block>::const_iterator block) {
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
            return;
        }
    }
    holes_[offset] = bytes;
}

bool Arena::Contains(const void* address) const {
    const char* p = static_cast<const char*>(address);
    if (p >= device_base_ && p < device_base_ + bytes_) return true;
    std::shared_lock<std::shared_mutex> lock(mutex_);
    return FindWindow(p) != windows_.end() || reservations_.Contains(p);
}

void* Arena::Translate(const void* address, size_t bytes) const {
    const char* p = static_cast<const char*>(address);
    std::shared_lock<std::shared_mutex> lock(mutex_);
    if (p >= device_base_ && p < device_base_ + bytes_) {
        const size_t offset = p - device_base_;
        auto block = blocks_.upper_bound(offset);
        if (block == blocks_.begin()) return nullptr;
        --block;
        return offset + bytes <= block->first + block->second.bytes ? host_base_ + offset : nullptr;
    }
    const auto window = FindWindow(p);
    if (window == windows_.end()) return reservations_.Translate(p, bytes);
    if (window->second.host == nullptr) return nullptr;
    if (p + bytes > window->first + window->second.bytes) return nullptr;
    return window->second.host + (p - window->first);
}

void* Arena::MapWindow(void* host, size_t bytes, bool only_kernels) {
    void* address =
        mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED) return nullptr;
    std::unique_lock<std::shared_mutex> lock(mutex_);
    windows_[static_cast<char*>(address)] = {static_cast<char*>(host), bytes, only_kernels};
    return address;
}

void Arena::UnmapWindow(void* address) {
    std::unique_lock<std::shared_mutex> lock(mutex_);
    const auto window = windows_.find(static_cast<char*>(address));
    if (window == windows_.end()) return;
    munmap(address, window->second.bytes);
    windows_.erase(window);
}

bool Arena::OnlyForKernels(const void* address) const {
    std::shared_lock<std::shared_mutex> lock(mutex_);
    const auto window = FindWindow(static_cast<const char*>(address));
    return window != windows_.end() && window->second.only_kernels;
}

bool Arena::BehindCard(const void* address) const {
    std::shared_lock<std::shared_mutex> lock(mutex_);
    const auto window = FindWindow(static_cast<const char*>(address));
    return window != windows_.end() && window->second.host == nullptr;
}

size_t Arena::Used(int device) {
    std::unique_lock<std::shared_mutex> lock(mutex_);
    return used_[device];
}

std::map<char*, Arena::MappedWindow>::const_iterator Arena::FindWindow(const char* p) const {
    auto window = windows_.upper_bound(const_cast<char*>(p));
    if (window == windows_.begin()) return windows_.end();
    --window;
    return p < window->first + window->second.bytes ? window : windows_.end();
}

// Says what happened before the process dies by the fault, which is left to whoever handled it
// before us. A forked child has that handler already.
void Arena::ExplainFaults() {
    static bool installed = false;
    if (installed) return;
    installed = true;
    struct sigaction action = {};
    action.sa_sigaction = [](int, siginfo_t* info, void*) {
        const Arena* arena = instance_;
        const char* p = static_cast<const char*>(info->si_addr);
        const char* wall = arena == nullptr ? nullptr : arena->WallBefore(p);
        if (wall != nullptr && write(STDERR_FILENO, wall, strlen(wall)) < 0) {
        }
        sigaction(SIGSEGV, &previous_, nullptr);
        if (info->si_code <= 0) raise(SIGSEGV);  // sent by a process: it would not come again
    };
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, &previous_);
}

// What to say of an address that lies behind a wall; null: it does not. For the fault handler: the
// faulting thread may hold the lock, so it only tries to take it.
const char* Arena::WallBefore(const char* p) const {
    constexpr const char* kDevice =
        "[virtual NPU] host code touched device memory; on an NPU this address is not in the "
        "host's memory\n";
    constexpr const char* kOtherServer =
        "[virtual NPU] an access to the HCCL window of a rank in another server: it is not mapped "
        "here, only RDMA reaches it\n";
    if (p >= device_base_ && p < device_base_ + bytes_) return kDevice;
    std::shared_lock<std::shared_mutex> lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return nullptr;
    const auto window = FindWindow(p);
    if (window != windows_.end()) return window->second.host == nullptr ? kOtherServer : kDevice;
    return reservations_.TryContains(p) ? kDevice : nullptr;
}

}  // namespace standin
