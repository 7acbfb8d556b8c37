// Small kernels of one rank with one mistake each in how it tells its network card to write, beside
// the correct kernel they were made from; and a reader of records that looks at three flags at
// once.
#include "device/rdma_post.h"
#include "mini.h"

using namespace ascend_moe;

namespace {

constexpr uint32_t kBytes = 256;
constexpr uint64_t kPlace = kControlBytes;  // of core 0, in both windows

enum class Mistake {
    kNone,
    kByScalars,  // the element, cleaned and behind a barrier: correct
    kInCache,
    kCleanedOnly,
    kNoBarrier,
    kOwner,
    kOperation,
    kUnsignalled,
    kSources,
    kNoBytes,
    kOtherBytes,
    kLocalKey,
    kRemoteKey,
    kLocalRange,
    kRemoteRange,
    kShortDoorbell,
    kDoorbellByCache,
    kUnknownQueue,
    kCommand,
    kNoHead,
    kReusedSource,
    kUnwrittenSource,
    kReusedElement,
    kOverflow,
};

// One message by hand, but for what the mistake changes.
class Hand {
 public:
    Hand(GM_ADDR tables, uint32_t peer, Mistake mistake) : mistake_(mistake) {
        post_.InitBuffers(&pipe_);
        for (Calc* buffer : {&source_, &element_, &doorbell_, &head_})
            pipe_.InitBuffer(*buffer, kBytes);
        pair = post_.Open(reinterpret_cast<uint64_t>(tables), peer, 0);
    }

    void Source() {
        Duplicate(source_.Get<float>(), 5.0f, kBytes / 4);
        Sync<HardEvent::V_MTE3>();
        if (mistake_ != Mistake::kUnwrittenSource)
            DataCopy(At<float>(pair.output + place_), source_.Get<float>(), kBytes / 4);
    }

    void Element() {
        const uint32_t owner = 1 - (pair.head >> pair.shift & 1);
        const uint64_t remote = pair.input + place_, local = pair.output + place_;
        words_[kElementControl] = kOpWrite | owner << kOwnerShift | kSignalled;
        words_[kElementBytes] = words_[kElementSourceBytes] = kBytes;
        words_[kElementSources] = 1 << kSourcesShift;
        words_[kElementRemoteKey] = pair.remote_key;
        words_[kElementLocalKey] = pair.local_key;
        words_[kElementRemote] = static_cast<uint32_t>(remote);
        words_[kElementRemote + 1] = static_cast<uint32_t>(remote >> 32);
        words_[kElementLocal] = static_cast<uint32_t>(local);
        words_[kElementLocal + 1] = static_cast<uint32_t>(local >> 32);
        Spoil();
        const uint64_t slot = pair.head & (pair.depth - 1);
        const auto place = At<uint32_t>(pair.elements + slot * pair.element_bytes);
        if (Is(Mistake::kByScalars) || Is(Mistake::kInCache) || Is(Mistake::kCleanedOnly)) {
            for (uint32_t i = 0; i < kWords; ++i) place.SetValue(i, words_[i]);
            if (!Is(Mistake::kInCache)) Clean(place);
        } else {
            for (uint32_t i = 0; i < kWords; ++i) element_.Get<uint32_t>().SetValue(i, words_[i]);
            Sync<HardEvent::S_MTE3>();
            Store(place, element_.Get<uint32_t>(), kWords);
        }
        if (!Is(Mistake::kNoBarrier) && !Is(Mistake::kCleanedOnly)) PipeBarrier<PIPE_ALL>();
    }

    void Ring() {
        ++pair.head;
        const uint32_t number = pair.number + (Is(Mistake::kUnknownQueue) ? 100 : 0);
        const uint32_t command = Is(Mistake::kCommand) ? 1 << kDoorbellNumberBits : 0;
        const auto doorbell = doorbell_.Get<uint32_t>();
        doorbell.SetValue(0, number | command);
        doorbell.SetValue(1, pair.head & 0xffff);
        head_.Get<uint32_t>().SetValue(0, pair.head);
        Sync<HardEvent::S_MTE3>();
        if (Is(Mistake::kDoorbellByCache)) {
            At<uint64_t>(pair.doorbell).SetValue(0, pair.number);
            Clean(At<uint32_t>(pair.doorbell));
        } else {
            Store(At<uint32_t>(pair.doorbell), doorbell, Is(Mistake::kShortDoorbell) ? 1 : 2);
        }
        if (!Is(Mistake::kNoHead)) Store(At<uint32_t>(pair.head_at), head_.Get<uint32_t>(), 1);
        PipeBarrier<PIPE_ALL>();
    }

    void Run() {
        Source();
        const uint32_t times = Is(Mistake::kOverflow) ? pair.depth : 1;
        for (uint32_t i = 0; i < times; ++i) {
            Element();
            Ring();
        }
        if (Is(Mistake::kReusedSource)) Source();
        if (Is(Mistake::kReusedElement)) {
            --pair.head;
            Element();
        }
    }

    QueuePair pair;

 private:
    static constexpr uint32_t kWords = sizeof(SendElement) / 4;

    bool Is(Mistake mistake) const { return mistake_ == mistake; }

    static void Clean(const GlobalTensor<uint32_t>& place) {
        DataCacheCleanAndInvalid<uint32_t, CacheLine::SINGLE_CACHE_LINE, DcciDst::CACHELINE_OUT>(
            place);
    }

    void Spoil() {
        if (Is(Mistake::kOwner)) words_[kElementControl] ^= 1u << kOwnerShift;
        if (Is(Mistake::kOperation)) ++words_[kElementControl];
        if (Is(Mistake::kUnsignalled)) words_[kElementControl] &= ~kSignalled;
        if (Is(Mistake::kSources)) words_[kElementSources] *= 2;
        if (Is(Mistake::kNoBytes)) words_[kElementBytes] = words_[kElementSourceBytes] = 0;
        if (Is(Mistake::kOtherBytes)) words_[kElementBytes] -= 4;
        if (Is(Mistake::kLocalKey)) words_[kElementLocalKey] = pair.remote_key;
        if (Is(Mistake::kRemoteKey)) words_[kElementRemoteKey] = pair.local_key;
        if (Is(Mistake::kLocalRange)) words_[kElementLocal] -= kPlace + kBytes / 2;
        if (Is(Mistake::kRemoteRange)) words_[kElementRemote] -= kPlace + kBytes / 2;
    }

    Mistake mistake_;
    uint64_t place_ = kPlace + GetBlockIdx() * kBytes;
    TPipe pipe_;
    RdmaPost post_;
    Calc source_, element_, doorbell_, head_;
    uint32_t words_[kWords] = {};
};

}  // namespace

#define MISTAKE(name, mistake) \
    MINI_CARD(name) { Hand(tables, 1, Mistake::mistake).Run(); }

MISTAKE(mini_card, kNone)
MISTAKE(mini_card_by_scalars, kByScalars)
MISTAKE(mini_card_in_cache, kInCache)
MISTAKE(mini_card_cleaned_only, kCleanedOnly)
MISTAKE(mini_card_no_barrier, kNoBarrier)
MISTAKE(mini_card_owner, kOwner)
MISTAKE(mini_card_operation, kOperation)
MISTAKE(mini_card_unsignalled, kUnsignalled)
MISTAKE(mini_card_sources, kSources)
MISTAKE(mini_card_no_bytes, kNoBytes)
MISTAKE(mini_card_other_bytes, kOtherBytes)
MISTAKE(mini_card_local_key, kLocalKey)
MISTAKE(mini_card_remote_key, kRemoteKey)
MISTAKE(mini_card_local_range, kLocalRange)
MISTAKE(mini_card_remote_range, kRemoteRange)
MISTAKE(mini_card_short_doorbell, kShortDoorbell)
MISTAKE(mini_card_doorbell_by_cache, kDoorbellByCache)
MISTAKE(mini_card_unknown_queue, kUnknownQueue)
MISTAKE(mini_card_command, kCommand)
MISTAKE(mini_card_no_head, kNoHead)
MISTAKE(mini_card_reused_source, kReusedSource)
MISTAKE(mini_card_unwritten_source, kUnwrittenSource)
MISTAKE(mini_card_reused_element, kReusedElement)
MISTAKE(mini_card_overflow, kOverflow)

// Two cores post on one queue, one after the other; with a SyncAll between they may.
namespace {
void InTurn(GM_ADDR tables, bool sync) {
    for (int64_t core = 0; core < GetBlockNum(); ++core) {
        if (core == GetBlockIdx()) Hand(tables, 1, Mistake::kNone).Run();
        if (sync) SyncAll();
    }
}
}  // namespace
MINI_CARD(mini_card_in_turn) { InTurn(tables, true); }
MINI_CARD(mini_card_two_cores) { InTurn(tables, false); }

MINI_CARD(mini_server_read) {
    Frame f(context, out);
    const QueuePair pair = Hand(tables, 1, Mistake::kNone).pair;
    DataCopy(f.ub, At<float>(pair.input + kPlace), 8);
}
MINI_CARD(mini_server_write) {
    Frame f(context, out);
    const QueuePair pair = Hand(tables, 1, Mistake::kNone).pair;
    Duplicate(f.ub, 5.0f, 8);
    Sync<HardEvent::V_MTE3>();
    DataCopy(At<float>(pair.input + kPlace), f.ub, 8);
}
MINI_CARD(mini_server_scalar) {
    At<float>(Hand(tables, 1, Mistake::kNone).pair.input + kPlace).GetValue(0);
}
