// A library of ours and an HCCL with one fault each, for test_first_steps.py: FAULT names it. No
// device, no kernels; what the probes report is written down here by kernels/device/abi.h.
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kCoreWords = 24, kRowBytes = 512;
std::string text;
bool launch_failed;
uint32_t own_rank, all_ranks;

bool Fault(const char* name) {
    const char* fault = getenv("FAULT");
    return fault != nullptr && strcmp(fault, name) == 0;
}

int Fail(int status, const std::string& why) {
    text = why;
    return status;
}

int64_t Now() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

void WriteFile(const char* group, int missing) {
    const std::string folder = std::string(getenv("XDG_CACHE_HOME")) + "/ascend-moe/errors";
    if (system(("mkdir -p " + folder).c_str()) != 0) abort();
    FILE* file = fopen((folder + "/1.json").c_str(), "w");
    fprintf(file,
            "{\"time\": %ld, \"pid\": %d, \"group\": \"%s\", \"ep_rank\": 0, \"op\": \"opening\", "
            "\"missing_rank\": %d, \"waited_s\": 3, \"virtual_npu\": true}",
            static_cast<long>(time(nullptr)), getpid(), group, missing);
    fclose(file);
}

}  // namespace

#ifndef NO_MARK
EXPORT int ascend_moe_library_version() { return 2; }
#endif

#define OPERATOR(name)              \
    EXPORT int name() { return 0; } \
    EXPORT int name##GetWorkspaceSize() { return 0; }
OPERATOR(aclnnMoeDistributeDispatchV2)
OPERATOR(aclnnMoeDistributeDispatchV3)
OPERATOR(aclnnMoeDistributeDispatchV4)
OPERATOR(aclnnMoeDistributeCombineV2)
OPERATOR(aclnnMoeDistributeCombineV3)
OPERATOR(aclnnMoeDistributeCombineV4)

EXPORT int aclInit(const char*) { return 0; }
EXPORT int aclrtSetDevice(int) { return 0; }
EXPORT int aclrtCreateStream(void** stream) { return *stream = &text, 0; }
EXPORT const char* aclGetRecentErrMsg() {
    static std::string taken;
    taken.swap(text);
    text.clear();
    return taken.c_str();
}

EXPORT int HcclGetRootInfo(char* root) { return *root = 'r', 0; }
EXPORT int HcclCommInitRootInfo(uint32_t ranks, const char* root, uint32_t rank, void** comm) {
    own_rank = rank;
    all_ranks = ranks;
    *comm = &own_rank;
    if (Fault("no-communicator") && rank == 1) return Fail(4, "EI0006: no socket");
    return *root == 'r' ? 0 : 1;
}
EXPORT int HcclGetCommName(void*, char* name) { return strcpy(name, "the group"), 0; }
EXPORT int HcclCommDestroy(void*) { return 0; }

#ifndef NO_PROBES
EXPORT uint32_t ascend_moe_probe_granted_cores() { return 4; }

EXPORT int ascend_moe_probe_cores(uint32_t blocks, uint32_t mark, uint32_t* report,
                                  int32_t* launched, int64_t* began, int64_t* ended) {
    *began = *ended = Now();
    *launched = 0;
    if (blocks == 0) {
        if (Fault("launch-errors-lost")) return 0;
        launch_failed = true;
        return *launched = Fail(107000, Fault("launch-error-without-text") ? "" : "EE1003: 0");
    }
    if (Fault("launch-fails")) return *launched = Fail(507011, "no binary");
    if (Fault("launch-error-sticks") && launch_failed) return *launched = Fail(107000, "EE1003");
    if (Fault("rank-failed") && blocks > 1) abort();
    for (uint32_t core = 0; core < blocks; ++core) {
        if (Fault("blocks-missing") && core == 2) continue;
        uint32_t* words = report + core * kCoreWords;
        const uint64_t ticks = Fault("counter-stands-still") ? 1 : Now() / 20;
        const uint32_t who = Fault("blocks-misnumbered") ? core / 2 : core;
        const uint32_t block[] = {mark, who, blocks, static_cast<uint32_t>(ticks),
                                  static_cast<uint32_t>(ticks >> 32)};
        memcpy(words, block, sizeof(block));
        words[8] = Fault("blocks-repeated") && core == 1 ? 2 : 1;
        if (Fault("sync-all-hangs")) continue;
        memcpy(words + 16, block, sizeof(block));
        if (Fault("sync-all-not-seen") && core == 3) words[16] = 0;
    }
    return Fault("sync-all-hangs") && blocks > 1 ? Fail(107020, "not done after 20000 ms") : 0;
}

EXPORT int ascend_moe_windows(const char*, void*, uint32_t* rank, uint32_t* ranks, uint64_t* bytes,
                              uint64_t* base, uint32_t, char* provider) {
    if (Fault("no-windows")) return Fail(561002, "group_ep the group: no way to its HCCL windows");
    *rank = own_rank;
    *ranks = all_ranks;
    *bytes = 400 << 20;
    for (uint32_t i = 0; i < all_ranks; ++i) base[i] = 0x12c000000000 + i * *bytes;
    strcpy(provider, "fake");
    return 0;
}

EXPORT int ascend_moe_probe_row(const char* group, uint32_t rank, uint32_t ranks, uint64_t,
                                const uint64_t*, uint32_t nonce, const void*, uint8_t* received,
                                uint32_t* record) {
    const uint32_t before = (rank + ranks - 1) % ranks;
    for (uint32_t at = 0; at < kRowBytes; ++at)
        received[at] = at < 4 ? nonce >> 8 * at : (7 * before + at) % 251;
    if (atoi(getenv("ASCEND_MOE_TIMEOUT_S")) > 3) {
        if (Fault("row-differs") && rank == 1) received[17] ^= 1;
        if (Fault("row-not-arrived") && rank == 1) return Fail(561002, "rank 0 did not come");
        return 0;
    }
    if (rank != 0 || Fault("absent-rank-not-noticed")) return 0;
    const uint32_t named = Fault("record-names-another") ? 0 : before;
    const uint32_t block[8] = {nonce, 1, named + 1};
    if (!Fault("no-record")) memcpy(record, block, sizeof(block));
    if (!Fault("no-record-file")) WriteFile(group, before);
    return Fail(561002, "rank " + std::to_string(named) + " did not come (time limit 3 s)");
}

// Of two servers and of --tune: judged without a library (test_server_steps.py).
EXPORT int ascend_moe_probe_ping_pong() { return 1; }
EXPORT int ascend_moe_probe_measure() { return 1; }
EXPORT void ascend_moe_probe_force_cores(uint32_t) {}
#endif
