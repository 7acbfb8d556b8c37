// What scripts/npu_check asks of the library before it plays an operator
// (hardware_kit/first_steps.py): that a failed launch is seen, that every core runs once, that one
// row reaches a neighbour, and that a rank which does not come leaves its record. Exported for the
// kit and the tests; nothing else calls them.
//
// All go through Start() and the error records of the operators, so that what holds here holds
// there.
#include <algorithm>
#include <chrono>

#include "group.h"
#include "launch.h"
#include "report.h"
#include "runtime.h"
#include "settings.h"

#define PROBE extern "C" __attribute__((visibility("default")))

namespace ascend_moe {
namespace {

constexpr int kCoresTimeoutMs = 20'000;

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

int64_t Nanoseconds() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

}  // namespace
}  // namespace ascend_moe

// The cores that the operators would launch on.
PROBE uint32_t ascend_moe_probe_granted_cores() { return ascend_moe::GrantedCores(); }

// Launches a kernel on `blocks` cores in which each reports itself, abi.h's kCoreReportBytes per
// core; `report` has room for kMaxCores. 0 blocks are a launch that must fail. `launched` is the
// status of the launch alone, the result that of launch and stream; `began` and `ended` are when
// the host launched and when it saw the end, in nanoseconds of the steady clock. When the kernel
// does not end in time the report says how far it came, and its memory is not given back.
PROBE int ascend_moe_probe_cores(uint32_t blocks, uint32_t mark, void* report, int32_t* launched,
                                 int64_t* began, int64_t* ended) {
    using namespace ascend_moe;
    constexpr size_t kBytes = kMaxCores * kCoreReportBytes;
    auto* const memory = new DeviceBytes(kBytes);
    auto* const stream = new OwnStream();
    if (memory->address() == 0 || stream->get() == nullptr)
        return Fail(kInnerError, "no device memory or no stream for a probe");
    Launch launch{Kernel::kCores,
                  blocks,
                  {{"report", memory->address(), kBytes}},
                  {},
                  std::make_shared<Group>("", "")};
    launch.Pass(CoresProbe{mark});
    *began = Nanoseconds();
    *launched = Start(launch, stream->get());
    int status = *launched;
    if (status == ACL_SUCCESS) {
        status = aclrtSynchronizeStreamWithTimeout(stream->get(), kCoresTimeoutMs);
        if (status != ACL_SUCCESS) {
            Fail(status, "the probe of the cores has not ended well: %s", aclGetRecentErrMsg());
        }
    }
    *ended = Nanoseconds();
    CopyFromDevice(report, memory->address(), kBytes);
    if (status == ACL_SUCCESS || *launched != ACL_SUCCESS) {
        delete stream;
        delete memory;
    }
    return status;
}

// Writes `row` (kPitchBytes) into the window of the next rank and receives that of the rank before,
// or gives up after ASCEND_MOE_TIMEOUT_S. The windows are those of ascend_moe_windows; `nonce` is
// new and the same on all ranks. `record` (kBlockWords words) is the error block in the own window
// if the kernel left one, else zeros. All ranks must have found their windows before one calls.
PROBE int ascend_moe_probe_row(const char* group_ep, uint32_t rank, uint32_t ranks, uint64_t bytes,
                               const uint64_t* base, uint32_t nonce, const void* row,
                               void* received, uint32_t* record) {
    using namespace ascend_moe;
    Windows windows;
    windows.rank = rank;
    windows.ranks = ranks;
    windows.bytes = bytes;
    windows.base.assign(base, base + ranks);
    const auto group = std::make_shared<Group>(group_ep, "");
    int status = group->OpenForProbe(windows, nonce);
    if (status != ACL_SUCCESS) return status;
    const DeviceBytes sent(kPitchBytes), taken(kPitchBytes);
    if (sent.address() == 0 || taken.address() == 0)
        return Fail(kInnerError, "no device memory for a probe");
    CopyToDevice(sent.address(), row, kPitchBytes);
    Launch launch{Kernel::kRow,
                  1,
                  {{"context", group->context(), sizeof(Context)},
                   {"row", sent.address(), kPitchBytes},
                   {"received", taken.address(), kPitchBytes}},
                  {},
                  group};
    launch.Pass(RowProbe{group->timeout_ticks()});
    status = OwnStream().Run(launch);
    CopyFromDevice(received, taken.address(), kPitchBytes);
    uint32_t found[kBlockWords] = {};
    CopyFromDevice(found, windows.base[rank] + kErrorOffset, sizeof(found));
    const bool ours = found[0] == nonce;
    for (uint32_t word = 0; word < kBlockWords; ++word) record[word] = ours ? found[word] : 0;
    const std::string failure = group->Failure();
    return failure.empty() ? status : Fail(kInnerError, "%s", failure.c_str());
}
