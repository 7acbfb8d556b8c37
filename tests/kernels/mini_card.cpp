// Small kernels of one rank with one mistake each in how it tells its network card to write, beside
// the correct kernel they were made from; and a reader of records that looks at three flags at once.
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

#define MINI_CARD(name)                                                     \
    extern "C" void name(GM_ADDR context, GM_ADDR tables, GM_ADDR out);     \
    HOSTSIM_KERNEL(name);                                                   \
    extern "C" void name([[maybe_unused]] GM_ADDR context, GM_ADDR tables, \
                         [[maybe_unused]] GM_ADDR out)
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

// Records of 600 bytes, each a message with its flag at the head, and an end flag behind them; the
// cores of the receiver take them in turn: the vendor's layered dispatch. A record is there when its
// own flag is and the next one's or the end flag; there are no more when the end flag is set and the
// own one is not. The last step is right only if the end flag was read before the own one, which
// three copies in flight do not promise: vendor, tag v9.1.0-beta.1, mended by 8b4b39be6.
namespace {

constexpr uint32_t kRecords = 5, kRecordBytes = 600, kRecordPitch = 640;
constexpr uint64_t kEndPlace = kControlBytes, kRecordPlace = kControlBytes + 512;

class Records {
 public:
    Records(GM_ADDR context, GM_ADDR tables) {
        window_.Init(context, 0, kLastNone);
        post_.InitBuffers(&pipe_);
        for (Calc* buffer : {&row_, &end_, &own_, &next_}) pipe_.InitBuffer(*buffer, kRecordPitch);
        pair_ = post_.Open(reinterpret_cast<uint64_t>(tables), 1 - window_.rank, 0);
    }

    void Send() {
        for (uint32_t i = 0; i < kRecords; ++i) {
            const auto row = row_.Get<uint32_t>();
            Duplicate(row, 1000 + i, kRecordPitch / 4);
            Sync<HardEvent::V_S>();
            row.SetValue(0, window_.nonce);
            row.SetValue(1, i + 1);
            Sync<HardEvent::S_MTE3>();
            const uint64_t place = kRecordPlace + i * kRecordPitch;
            Store(At<uint32_t>(pair_.output + place), row, kRecordBytes / 4);
            post_.Post(window_, pair_, place, place, kRecordBytes);
            PipeBarrier<PIPE_ALL>();
        }
        post_.PostTag(MOE_FLAG("end"), window_, pair_, kEndPlace, kEndPlace, 1);
    }

    void Receive(GM_ADDR out, bool ordered) {
        uint32_t record = static_cast<uint32_t>(GetBlockIdx());
        while (true) {
            {
                PollScope poll;
                Look(end_, kEndPlace);
                if (ordered) PipeBarrier<PIPE_MTE2>();
                Look(own_, kRecordPlace + record * kRecordPitch);
                if (ordered) PipeBarrier<PIPE_MTE2>();
                Look(next_, kRecordPlace + (record + 1) * kRecordPitch);
            }
            Sync<HardEvent::MTE2_S>();
            const bool end = Is(end_, 1), own = Is(own_, record + 1), next = Is(next_, record + 2);
            Sync<HardEvent::S_MTE2>();
            if (own && (next || end)) {
                Load(row_.Get<uint32_t>(), At<uint32_t>(Own(kRecordPlace + record * kRecordPitch)),
                     kRecordBytes / 4);
                Sync<HardEvent::MTE2_MTE3>();
                Store(At<uint32_t>(reinterpret_cast<uint64_t>(out) + record * kRecordPitch),
                      row_.Get<uint32_t>(), kRecordBytes / 4);
                PipeBarrier<PIPE_ALL>();
                record += static_cast<uint32_t>(GetBlockNum());
            } else if (end && !own) {
                return;
            } else {
                PollPause(MOE_FLAG("a record"), 1 - window_.rank, record);
            }
        }
    }

 private:
    uint64_t Own(uint64_t place) const { return window_.Data(window_.rank, place); }
    void Look(Calc& at, uint64_t place) {
        Load(at.Get<uint32_t>(), At<uint32_t>(Own(place)), kTagWords);
    }
    bool Is(Calc& at, uint32_t number) {
        const auto flag = at.Get<uint32_t>();
        return flag.GetValue(0) == window_.nonce && flag.GetValue(1) == number;
    }

    Window window_;
    TPipe pipe_;
    RdmaPost post_;
    QueuePair pair_;
    Calc row_, end_, own_, next_;
};

}  // namespace
MINI_CARD(mini_records_send) { Records(context, tables).Send(); }
MINI_CARD(mini_records_at_once) { Records(context, tables).Receive(out, false); }
MINI_CARD(mini_records_in_order) { Records(context, tables).Receive(out, true); }
