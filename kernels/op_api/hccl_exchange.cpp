// Words by HcclAllGather on the group itself, where no Python of ours offers a store: agreement.h.
//
// The windows of the group are still nobody's, so HCCL may use them as scratch. A second gathering,
// of one number per rank, ends the exchange: who comes out of it knows that all have their words,
// and that nothing beyond the first 4 bytes per rank of a window is still in use by HCCL, far below
// where the meeting begins to write (kMeetOffset).
//
// Each waits no longer than the limit. Then the words that are there are read beside the collective
// that hangs; its memory and stream are left to it. Which words are there depends on HCCL's
// algorithm, but the word of a rank that did not come is in nobody's hands, so such a rank is
// always among those that are named.
//
// Sources: HcclAllGather, hicann/hccl v9.0.0 include/hccl.h:116; HCCL_DATA_TYPE_INT8 is 0,
// hccl_types.h; aclrtSynchronizeStreamWithTimeout counts milliseconds, hicann/runtime v8.5.0
// include/external/acl/acl_rt.h:2240.
#include <algorithm>

#include "agreement.h"
#include "cann/symbols.h"
#include "device/abi.h"
#include "report.h"
#include "runtime.h"
#include "windows.h"

namespace ascend_moe {
namespace {

constexpr int kInt8 = 0;
constexpr uint64_t kSettleBytes = 4;  // per rank
static_assert(kSettleBytes * kMaxRanks <= kMeetOffset, "would reach into the meeting");

using AllGather = int (*)(void* send, void* receive, uint64_t count, int type, void* comm,
                          aclrtStream stream);

// Device memory of an exchange: what is sent, and behind it what arrives. Freed with its stream
// unless something still hangs on them.
class Hall {
 public:
    Hall(void* comm, uint32_t ranks) : comm_(comm), ranks_(ranks) {
        void* memory = nullptr;
        if (aclrtMalloc(&memory, (1 + ranks) * sizeof(Word), ACL_MEM_MALLOC_HUGE_FIRST) ==
            ACL_SUCCESS) {
            memory_ = static_cast<char*>(memory);
        }
        if (aclrtCreateStream(&stream_) != ACL_SUCCESS) stream_ = nullptr;
    }
    ~Hall() {
        if (hangs_) return;
        if (stream_ != nullptr) aclrtDestroyStream(stream_);
        if (memory_ != nullptr) aclrtFree(memory_);
    }

    bool unsupported() const { return unsupported_; }

    // Empty, or why not everything arrived; `words` has what did.
    std::string Gather(AllGather gather, const Word& own, int64_t limit_s,
                       std::vector<Word>* words) {
        const std::vector<char> nothing(ranks_ * sizeof(Word));
        const auto send = reinterpret_cast<uint64_t>(memory_), receive = send + sizeof(Word);
        if (memory_ == nullptr || stream_ == nullptr ||
            CopyToDevice(send, &own, sizeof(own)) != ACL_SUCCESS ||
            CopyToDevice(receive, nothing.data(), nothing.size()) != ACL_SUCCESS) {
            return "no device memory or stream for it";
        }
        std::string problem = Run(gather, sizeof(Word), limit_s);
        if (CopyFromDevice(words->data(), receive, nothing.size()) != ACL_SUCCESS)
            problem += "; its result cannot be read";
        if (problem.empty()) problem = Run(gather, kSettleBytes, limit_s);
        return problem;
    }

 private:
    std::string Run(AllGather gather, uint64_t bytes, int64_t limit_s) {
        const int result = gather(memory_, memory_ + sizeof(Word), bytes, kInt8, comm_, stream_);
        unsupported_ = result == cann::kHcclNotSupport;
        if (result != 0) return "HcclAllGather returned " + std::to_string(result) + Told();
        constexpr int64_t kMost = INT32_MAX / 1000;
        const int status = aclrtSynchronizeStreamWithTimeout(
            stream_, static_cast<int32_t>(std::min(limit_s, kMost) * 1000));
        if (status == ACL_SUCCESS) return "";
        hangs_ = true;
        return "HcclAllGather ended with " + std::to_string(status) + Told();
    }

    static std::string Told() {
        const std::string text = RuntimeText();
        return text.empty() ? "" : ": " + text;
    }

    void* comm_;
    const uint32_t ranks_;
    char* memory_ = nullptr;
    aclrtStream stream_ = nullptr;
    bool hangs_ = false, unsupported_ = false;
};

}  // namespace

Heard ThroughHccl(const std::string& group, const Word& own, int64_t limit_s) {
    static const auto gather =
        reinterpret_cast<AllGather>(cann::Resolve("HcclAllGather", "libhccl.so"));
    const cann::Symbols& cann = cann::Cann();
    std::string missing = cann::Missing(cann.HcclGetRankSize, cann.HcclGetRankId);
    if (missing.empty() && cann.HcclCommGetHandleWithName.call == nullptr)
        missing = cann::Missing(cann.HcomGetCommHandleByGroup);
    if (gather == nullptr || !missing.empty())
        return {{}, "CANN has no " + (gather == nullptr ? "HcclAllGather" : missing)};
    void* comm = const_cast<void*>(CommunicatorOf(group));
    uint32_t ranks = 0, rank = 0;
    if (comm == nullptr || cann.HcclGetRankSize(comm, &ranks) != cann::kHcclSuccess ||
        cann.HcclGetRankId(comm, &rank) != cann::kHcclSuccess || rank >= ranks) {
        return {{}, "this process has no HCCL communicator of that name"};
    }
    Heard heard{std::vector<Word>(ranks), ""};
    Hall hall(comm, ranks);
    if (ranks > 1) heard.problem = hall.Gather(gather, own, limit_s, &heard.words);
    if (hall.unsupported()) return {{}, heard.problem};
    if (!heard.problem.empty()) heard.problem += "; some of these words may have been on their way";
    heard.words[rank] = own;
    return heard;
}

}  // namespace ascend_moe
