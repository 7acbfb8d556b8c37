// What scripts/npu_check asks of the library before it plays an operator
// (hardware_kit/first_steps.py): that a failed launch is seen, that every core runs once, that one
// row reaches a neighbour, and that a rank which does not come leaves its record. Exported for the
// kit and the tests; nothing else calls them.
//
// All go through Start() and the error records of the operators, so that what holds here holds
// there.
#include <memory>

#include "probes.h"

namespace ascend_moe {
namespace {

constexpr int kCoresTimeoutMs = 20'000;

// A launch that its host may have to leave behind, with all it uses.
struct CoresLaunch {
    DeviceBytes window{kControlBytes};  // of a group of one: as for any launch; the report is in it
    OwnStream stream;
    std::shared_ptr<Group> group = std::make_shared<Group>("npu_check", "");
    uint64_t report() const { return window.address() + kCountsOffset; }
};

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
    auto probe = std::make_unique<CoresLaunch>();
    if (probe->window.address() == 0 || probe->stream.get() == nullptr)
        return Fail(kInnerError, "no device memory or no stream for a probe");
    int status = probe->group->OpenForProbe(WindowsAt(0, {probe->window.address()}, kControlBytes),
                                            /*nonce=*/1);
    if (status != ACL_SUCCESS) return status;
    Launch launch{Kernel::kCores, blocks, {{"report", probe->report(), kBytes}}, {}, probe->group};
    launch.Pass(CoresProbe{mark});
    *began = Nanoseconds();
    *launched = Start(launch, probe->stream.get());
    status = *launched;
    if (status == ACL_SUCCESS) {
        status = aclrtSynchronizeStreamWithTimeout(probe->stream.get(), kCoresTimeoutMs);
        if (status != ACL_SUCCESS)
            Fail(status, "the probe of the cores did not end well: %s", RuntimeText().c_str());
    }
    *ended = Nanoseconds();
    CopyFromDevice(report, probe->report(), kBytes);
    if (status != *launched) probe.release();  // the kernel may still run
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
    const auto group = std::make_shared<Group>(group_ep, "");
    int status = group->OpenForProbe(WindowsAt(rank, {base, base + ranks}, bytes), nonce);
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
    return TellFailure(*group, nonce, record, status);
}
