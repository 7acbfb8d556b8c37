// What a machine can do, for scripts/npu_check --tune: loops of one kind of work, timed by the
// cores themselves, behind a SyncAll with which all begin together. The time of a launch is in no
// figure, but for that of kNothing, which the host measures.
//
// Copies go from or to the data part of a rank's window, where every core has `bytes` times
// kMeasureSlots of its own. What is read means nothing; what is written stands in the window of a
// group that nobody else uses. The two SyncAlls and the barrier behind the loop order nothing: they
// are there for the time.
#pragma once

#include "window.h"

namespace ascend_moe {

class MeasureKernel {
 public:
    __aicore__ inline void Run(TPipe* pipe, GM_ADDR context, GM_ADDR report,
                               const Measuring& wanted) {
        window_.Init(context, 0, kLastNone);
        window_.opened = false;
        wanted_ = wanted;
        const uint32_t room = AlignUp(wanted.bytes == 0 ? kBlockBytes : wanted.bytes, kBlockBytes);
        pipe->InitBuffer(copies_, kBuffers, room);
        pipe->InitBuffer(source_, room);
        pipe->InitBuffer(times_, kBlockBytes);
        const uint32_t peer = window_.core % 2 == 0 ? wanted.peer : wanted.other;
        area_ = window_.Data(peer, kControlBytes) +
                static_cast<uint64_t>(window_.core) * kMeasureSlots * wanted.bytes;
        LocalTensor<uint32_t> source = source_.Get<uint32_t>();
        AscendC::Duplicate(source, 0u, room / 4);
        MOE_SYNC_ALL();
        const int64_t began = AscendC::GetSystemCycle();
        for (uint32_t turn = 0; turn < wanted.turns; ++turn) Turn(turn);
        AscendC::PipeBarrier<PIPE_ALL>();
        const int64_t ended = AscendC::GetSystemCycle();

        LocalTensor<uint32_t> times = times_.Get<uint32_t>();
        for (uint32_t word = 0; word < kBlockWords; ++word) times.SetValue(word, 0);
        times.SetValue(kMeasuredMark, wanted.mark);
        times.SetValue(kMeasuredTicks, static_cast<uint32_t>(ended - began));
        MOE_SYNC(S_MTE3);
        Store(At<uint32_t>(reinterpret_cast<uint64_t>(report) + window_.core * kBlockBytes), times,
              kBlockWords);
    }

 private:
    static constexpr uint32_t kBuffers = 4;

    __aicore__ inline void Turn(uint32_t turn) {
        const uint64_t at = area_ + static_cast<uint64_t>(turn % kMeasureSlots) * wanted_.bytes;
        const uint32_t words = wanted_.bytes / 4;
        switch (wanted_.what) {
            case Measured::kSyncAll:
                AscendC::SyncAll<true>();
                break;
            case Measured::kLoads: {  // as many on their way as there are buffers
                PollScope old;
                LocalTensor<uint32_t> copy = copies_.AllocTensor<uint32_t>();
                Load(copy, At<uint32_t>(at), words);
                copies_.EnQue(copy);
                copy = copies_.DeQue<uint32_t>();
                copies_.FreeTensor(copy);
                break;
            }
            case Measured::kStores:
                Store(At<uint32_t>(at), source_.Get<uint32_t>(), words);
                break;
            case Measured::kHops: {  // the next one begins when this one is here
                PollScope old;
                if (words != 0) Load(times_.Get<uint32_t>(), At<uint32_t>(at), kBlockWords);
                MOE_SYNC(MTE2_S);
                break;
            }
            default:
                break;
        }
    }

    Window window_;
    Measuring wanted_;
    uint64_t area_;
    AscendC::TQue<TPosition::VECIN, 1> copies_;
    Buffer source_, times_;
};

}  // namespace ascend_moe
