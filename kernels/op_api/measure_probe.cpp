// For scripts/npu_check --tune: loops that measure this machine (device/measure.h), and operators
// on a given number of cores.
#include "probes.h"
#include "tuning.h"

// Times `work` (a Measuring) on `blocks` cores, `launches` times in a row. The windows are those of
// ascend_moe_windows; only this rank has to call. `ticks` has room for kMaxCores: of each core in
// the last launch, 0 for one that did not run. `nanoseconds`: from the first launch to the end of
// the last one, by the host.
PROBE int ascend_moe_probe_measure(const char* group_ep, uint32_t rank, uint32_t ranks,
                                   uint64_t bytes, const uint64_t* base, uint32_t blocks,
                                   uint32_t launches, const void* work, uint32_t* ticks,
                                   int64_t* nanoseconds) {
    using namespace ascend_moe;
    Measuring wanted{};
    memcpy(&wanted, work, sizeof(wanted));
    const uint64_t needed = kControlBytes + uint64_t{kMaxCores} * kMeasureSlots * wanted.bytes;
    if (wanted.peer >= ranks || wanted.other >= ranks || wanted.bytes % 4 != 0 || needed > bytes ||
        base[wanted.peer] == 0 || base[wanted.other] == 0)
        return Fail(kBadParameter,
                    "a probe of %u bytes with ranks %u and %u does not fit %u windows of %lu bytes",
                    wanted.bytes, wanted.peer, wanted.other, ranks,
                    static_cast<unsigned long>(bytes));
    const auto group = std::make_shared<Group>(group_ep, "");
    int status = group->OpenForProbe(WindowsAt(rank, {base, base + ranks}, bytes), wanted.mark | 1);
    if (status != ACL_SUCCESS) return status;
    const DeviceBytes report(kMaxCores * kBlockBytes);
    const OwnStream stream;
    if (report.address() == 0 || stream.get() == nullptr)
        return Fail(kInnerError, "no device memory or no stream for a probe");
    Launch launch{Kernel::kMeasure,
                  blocks,
                  {{"context", group->context(), sizeof(Context)},
                   {"report", report.address(), kMaxCores * kBlockBytes}},
                  {},
                  group};
    launch.Pass(wanted);
    const int64_t began = Nanoseconds();
    for (uint32_t number = 0; number < launches && status == ACL_SUCCESS; ++number)
        status = Start(launch, stream.get());
    const int ended = aclrtSynchronizeStream(stream.get());
    *nanoseconds = Nanoseconds() - began;
    if (status == ACL_SUCCESS && ended != ACL_SUCCESS)
        status = Fail(ended, "a probe did not end well: %s", RuntimeText().c_str());
    std::vector<uint32_t> words(kMaxCores * kBlockWords);
    CopyFromDevice(words.data(), report.address(), words.size() * sizeof(uint32_t));
    for (uint32_t core = 0; core < kMaxCores; ++core) {
        const uint32_t* block = &words[core * kBlockWords];
        ticks[core] = block[kMeasuredMark] == wanted.mark ? block[kMeasuredTicks] : 0;
    }
    return status;
}

// The operators of this process run on so many cores from now on; 0: as the library chooses.
PROBE void ascend_moe_probe_force_cores(uint32_t cores) { ascend_moe::ForceCores(cores); }
