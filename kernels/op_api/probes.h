// What the calls for scripts/npu_check share (*_probe.cpp). They are exported for the kit and the
// tests; nothing else calls them.
#pragma once

#include <chrono>
#include <vector>

#include "group.h"
#include "launch.h"
#include "report.h"
#include "runtime.h"

#define PROBE extern "C" __attribute__((visibility("default")))

namespace ascend_moe {

// Zeroed device memory.
class DeviceBytes {
 public:
    explicit DeviceBytes(size_t bytes) {
        const std::vector<char> zeros(bytes);
        if (aclrtMalloc(&memory_, bytes, ACL_MEM_MALLOC_HUGE_FIRST) != ACL_SUCCESS)
            memory_ = nullptr;
        else
            CopyToDevice(address(), zeros.data(), bytes);
    }
    ~DeviceBytes() {
        if (memory_ != nullptr) aclrtFree(memory_);
    }
    DeviceBytes(const DeviceBytes&) = delete;
    DeviceBytes& operator=(const DeviceBytes&) = delete;
    uint64_t address() const { return reinterpret_cast<uint64_t>(memory_); }

 private:
    void* memory_ = nullptr;
};

inline int64_t Nanoseconds() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

inline Windows WindowsAt(uint32_t rank, std::vector<uint64_t> base, uint64_t bytes) {
    Windows windows;
    windows.rank = rank;
    windows.ranks = static_cast<uint32_t>(base.size());
    windows.bytes = bytes;
    windows.base = std::move(base);
    return windows;
}

// `record` (kBlockWords words) becomes the first error block of this nonce in the own window, or
// zeros. With one its text is that of the call, which failed; else the call ended with `status`.
inline int TellFailure(const Group& group, uint32_t nonce, uint32_t* record, int status) {
    std::vector<uint32_t> control(kWatchedWords);
    const uint64_t own = group.ep_windows().base[group.ep_rank()];
    CopyFromDevice(control.data(), own, control.size() * sizeof(uint32_t));
    std::fill_n(record, kBlockWords, 0);
    for (uint32_t core = kMaxCores; core-- > 0;) {
        const uint32_t* block =
            control.data() + kErrorOffset / sizeof(uint32_t) + core * kBlockWords;
        if (block[0] == nonce) std::copy_n(block, kBlockWords, record);
    }
    if (record[0] != nonce) return status;
    return Fail(kInnerError, "%s", group.Failure(control.data()).c_str());
}

}  // namespace ascend_moe
