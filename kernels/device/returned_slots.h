// Combine, the source's side: where the rows are that have come back, and the wait for them.
#pragma once

#include "return_rows.h"
#include "waited.h"

namespace ascend_moe {

constexpr uint32_t kTokensAtOnce = 8;  // whose routing is loaded together

// A slot for each pair. Waits for a rank when its first row is asked for. Ranks report at about the
// same time, so a poll loads the blocks of many neighbours, of which the next ones asked for need
// no poll of their own.
class ReturnedSlots {
 public:
    __aicore__ inline ReturnedSlots(TPipe* pipe, Window& window, const Parameters& p,
                                    uint32_t epoch)
        : window_(window),
          p_(p),
          epoch_(epoch),
          slots_(window.Data(window.rank, RowsOffset(window.bytes))),
          waited_(window, Measured(p)) {
        pipe->InitBuffer(blocks_, kAtOnce * kBlockBytes);
        for (uint32_t i = 0; i < kMaxRanks / 32; ++i) arrived_[i] = 0;
        waited_.Watch(pipe, MOE_FLAG("rows"), kDoneOffset, 1, Share{0, window.ranks}, epoch);
    }

    __aicore__ inline bool OwnTravel() const { return OwnRowsTravel(p_); }
    __aicore__ inline void LoadTokens(uint32_t, uint32_t) const {}
    __aicore__ inline uint64_t Row(uint32_t from, uint32_t token, uint32_t slot) {
        if ((arrived_[from / 32] >> (from % 32) & 1) == 0) {
            waited_.Until(from, from);
            WaitFor(MOE_FLAG("rows"), from);
            arrived_[from / 32] |= 1u << (from % 32);
        }
        return slots_ + SlotOffset(p_, token, slot);
    }
    __aicore__ inline void MergeWaitsInto(const WaitsOfCores& waits) {
        waited_.MergeInto(waits.Address(), Waits::kLongest);
    }

 private:
    static constexpr uint32_t kAtOnce = 64;  // blocks

    __aicore__ inline void WaitFor(FlagName what, uint32_t from) {
        const uint32_t first = from / kAtOnce * kAtOnce, behind = window_.ranks - first;
        LocalTensor<uint32_t> blocks = blocks_.Get<uint32_t>(),
                              block = blocks[(from - first) * kBlockWords];
        const bool dropped = WaitDropped(what);
        bool polled = false;
        while (!window_.failed && !dropped &&
               (loaded_ != first || !window_.Tagged(block, epoch_))) {
            if (polled) window_.Pause(what, from, epoch_);
            MOE_SYNC(S_MTE2);
            {
                PollScope poll;
                Load(blocks,
                     At<uint32_t>(window_.Control(window_.rank, kDoneOffset + first * kBlockBytes)),
                     (behind < kAtOnce ? behind : kAtOnce) * kBlockWords);
            }
            MOE_SYNC(MTE2_S);
            loaded_ = first;
            polled = true;
        }
        if (!window_.failed) window_.Compare(block, kTagWords, MarkOf(p_), from);
    }

    Window& window_;
    const Parameters& p_;
    uint32_t epoch_;
    uint64_t slots_;
    uint32_t loaded_ = kMaxRanks;       // whose block is the first one loaded
    uint32_t arrived_[kMaxRanks / 32];  // bit r: rank r's rows are here
    Waited waited_;
    Buffer blocks_;
};

}  // namespace ascend_moe
