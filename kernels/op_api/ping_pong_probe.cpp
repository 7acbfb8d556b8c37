// For scripts/npu_check on several servers: messages over the network card to a rank of another
// server and back (device/ping_pong.h), before any operator relies on them.
#include <algorithm>

#include "probes.h"
// clang-format off
#include "device/rdma_abi.h"  // behind <cstdint>
// clang-format on

namespace ascend_moe {
namespace {

constexpr uint32_t kMessageBytesMax = 128 << 10;  // it is copied through UB in one piece

// Word `at` of what goes out first: no two of a message are the same.
uint32_t Sent(size_t at) { return static_cast<uint32_t>(at * 7919); }

}  // namespace
}  // namespace ascend_moe

// What a ping-pong is asked for, and what the leader has seen; hardware_kit/probe_library.py has
// the same.
struct ascend_moe_ping_pong_probe {
    uint32_t peer, first, turns, burst, bytes;
    uint32_t queues;       // out: cores that took part, one for every queue to the peer
    uint32_t leads;        // out: whether this rank began, and so sees what came back
    uint32_t wrong;        // out: words of what came back that are not what they must be
    uint64_t first_wrong;  // out: the number of the first of them
    int64_t nanoseconds;   // out: of the launch and of waiting for it
};

// `turns` of `burst` messages of `bytes` and a tag, there and back, on every queue to `peer`. Rank,
// windows and card are those of ascend_moe_windows_and_queues; `nonce` is new and the same on both
// ranks, and numbers of turns grow from call to call with the same nonce. Gives up after
// ASCEND_MOE_TIMEOUT_S; `record` (kBlockWords words) is the error block that the kernel left in the
// own window, else zeros. Both ranks must have found their windows before one calls.
PROBE int ascend_moe_probe_ping_pong(const char* group_ep, uint32_t rank, uint32_t ranks,
                                     uint64_t bytes, const uint64_t* base, const void* card,
                                     uint32_t nonce, ascend_moe_ping_pong_probe* probe,
                                     uint32_t* record) {
    using namespace ascend_moe;
    std::fill_n(record, kBlockWords, 0);
    if (probe->bytes == 0 || probe->bytes % 4 != 0 || probe->bytes > kMessageBytesMax)
        return Fail(kBadParameter, "messages of %u bytes, must be a multiple of 4, %u at most",
                    probe->bytes, kMessageBytesMax);
    Windows windows = WindowsAt(rank, {base, base + ranks}, bytes);
    memcpy(&windows.card, card, sizeof(windows.card));
    QueueTables tables{};
    int status = CopyFromDevice(&tables, windows.card.queues, sizeof(tables));
    if (status != ACL_SUCCESS) return Fail(status, "the queue tables cannot be read");
    probe->queues = std::min(tables.queues_per_peer, kMaxCores);
    probe->leads = rank < probe->peer;
    const uint64_t pitch = AlignUp(probe->bytes, kPitchBytes), part = probe->burst * pitch;
    const uint64_t needed = kControlBytes + probe->queues * (kPitchBytes + part);
    if (needed > bytes)
        return Fail(kBadParameter,
                    "%u messages of %u bytes on %u queues need %lu, a window has %lu", probe->burst,
                    probe->bytes, probe->queues, static_cast<unsigned long>(needed),
                    static_cast<unsigned long>(bytes));
    const auto group = std::make_shared<Group>(group_ep, "");
    status = group->OpenForProbe(windows, nonce);
    if (status != ACL_SUCCESS) return status;
    std::vector<uint32_t> words(probe->queues * part / sizeof(uint32_t));
    for (size_t at = 0; at < words.size(); ++at) words[at] = Sent(at);
    const size_t rows = words.size() * sizeof(uint32_t);
    const DeviceBytes start(rows), received(rows);
    if (start.address() == 0 || received.address() == 0)
        return Fail(kInnerError, "no device memory for a probe");
    CopyToDevice(start.address(), words.data(), rows);
    Launch launch{Kernel::kPingPong,
                  probe->queues,
                  {{"context", group->context(), sizeof(Context)},
                   {"queue tables", windows.card.queues, sizeof(tables)},
                   {"start", start.address(), rows},
                   {"received", received.address(), rows}},
                  {},
                  group};
    launch.Pass(PingPong{probe->peer, probe->first, probe->turns, probe->burst, probe->bytes,
                         group->timeout_ticks()});
    const int64_t began = Nanoseconds();
    status = OwnStream().Run(launch);
    probe->nanoseconds = Nanoseconds() - began;
    status = TellFailure(*group, nonce, record, status);
    probe->wrong = 0;
    probe->first_wrong = 0;
    if (status != ACL_SUCCESS || !probe->leads) return status;
    CopyFromDevice(words.data(), received.address(), rows);
    for (size_t at = 0; at < words.size(); ++at) {
        const bool sent = at % (pitch / sizeof(uint32_t)) < probe->bytes / sizeof(uint32_t);
        if (!sent || words[at] == Sent(at) + probe->turns) continue;
        if (probe->wrong++ == 0) probe->first_wrong = at;
    }
    return ACL_SUCCESS;
}
