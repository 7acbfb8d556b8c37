// Dispatch, what a source sends: lists while rows are still being staged, and the counts, on which
// destinations pull, as soon as all are. docs/kernels.md section 3.
#pragma once

#include "publish.h"

namespace ascend_moe {

// To a share of the destinations, every `step`-th from the `first` on: the pairs, then the counts.
// Destinations start with the next rank, so that not all sources write to the same one.
class RowAnnouncer : public Publisher {
 public:
    __aicore__ inline RowAnnouncer(TPipe* pipe, Window& window, const Parameters& p,
                                   const DispatchTensors& t, uint32_t epoch, uint32_t active,
                                   uint32_t first, uint32_t step)
        : Publisher(pipe, window, p, t, epoch, active, CeilDiv(window.ranks, step)),
          first_(first),
          step_(step) {}

    // They may still be on their way.
    __aicore__ inline void SendLists(uint64_t index) {
        if (first_ >= window_.ranks) return;
        NumberPairs();
        for (uint32_t i = first_, kept = 0; i < window_.ranks; i += step_, ++kept) {
            uint32_t peer = (window_.rank + 1 + i) % window_.ranks, rows = Prepare(peer, kept);
            MOE_SYNC(S_MTE3);
            if (rows > 0)
                StorePairs(window_.Data(peer, index + window_.rank * PairsBytes(p_)), rows);
        }
    }

    // A SyncAll behind the last staged row.
    __aicore__ inline void SendCounts() {
        if (PostDropped(MOE_FLAG("counts"))) return;
        AscendC::PipeBarrier<PIPE_MTE3>();  // the lists before the counts that announce them
        for (uint32_t i = first_, kept = 0; i < window_.ranks; i += step_, ++kept) {
            uint32_t peer = (window_.rank + 1 + i) % window_.ranks;
            Store(At<uint32_t>(window_.Control(peer, layout_.Offset(epoch_ & 1, window_.rank))),
                  Counts(kept), layout_.blocks * kBlockWords);
        }
    }

 private:
    uint32_t first_, step_;
};

}  // namespace ascend_moe
