// Dispatch, the destination's work: waits for all counts, then some cores pull the rows from the
// sources' windows into expand_x while others describe them.
#pragma once

#include "describe.h"
#include "pull.h"
#include "waited.h"

namespace ascend_moe {

// Rows says where a row and its scale are, by source, pair and place in the list, where the lists
// are, and whether the triples of A3 are the handle.
template <typename Rows>
class Receiver {
 public:
    __aicore__ inline Receiver(TPipe* pipe, Window& window, const Parameters& p,
                               const DispatchTensors& t, const Rows& source_rows, uint32_t epoch)
        : pipe_(pipe),
          window_(window),
          p_(p),
          t_(t),
          routing_(p, window.rank),
          layout_(p),
          source_rows_(source_rows),
          epoch_(epoch),
          experts_(routing_.ExpertsOn(window.rank)),
          row_bytes_(RowBytes(p)),
          roles_(window.cores, Rows::kTriples || HasScales(p)) {}

    // Blocks that a wait looks at.
    __aicore__ inline uint32_t Polled() const { return window_.ranks * layout_.blocks; }

    // For what this core is going to do. Every core waits for all sources itself, so none has to
    // wait for another one, nor hear of what that has seen; for whom the rank stood waiting, it
    // tells of its share alone.
    __aicore__ inline void Wait() {
        Share peers = ShareOf(window_.ranks, window_.core, window_.cores);
        Waited waited(window_, Measured(p_));
        waited.Watch(pipe_, MOE_FLAG("counts"), layout_.Offset(epoch_ & 1, 0), layout_.blocks,
                     peers, epoch_);
        waited.UntilAll();
        waited.MergeInto(t_.performance_info, p_.waits);
        LocalTensor<uint32_t> blocks = window_.Wait(
            MOE_FLAG("counts"), layout_.Offset(epoch_ & 1, 0), Polled(), layout_.blocks, 0, epoch_);
        for (uint32_t peer = 0; peer < window_.ranks && !window_.failed; ++peer) {
            window_.Compare(blocks[peer * layout_.blocks * kBlockWords],
                            CountsLayout::Word(CountsLayout::kMark), MarkOf(p_), peer);
        }
    }

    __aicore__ inline void Run() {
        Buffer block_buffer, sum_buffer, taken_buffer;
        uint32_t words = window_.ranks * layout_.blocks * kBlockWords;
        pipe_->InitBuffer(block_buffer, 4 * words);
        pipe_->InitBuffer(sum_buffer, SumsBytes(layout_, window_.ranks));
        pipe_->InitBuffer(taken_buffer, SlotWalk::TakenBytes(window_.ranks));
        LocalTensor<uint32_t> blocks = block_buffer.Get<uint32_t>(),
                              sums = sum_buffer.Get<uint32_t>();
        window_.LoadFailures();
        {
            PollScope poll;  // after a timeout there may be blocks nobody wrote
            Load(blocks, At<uint32_t>(window_.Control(window_.rank, layout_.Offset(epoch_ & 1, 0))),
                 words);
        }
        MOE_SYNC(MTE2_S);
        window_.ShareFailure();
        if (window_.failed) return;
        SlotWalk walk(blocks, taken_buffer.Get<uint32_t>(), layout_, window_.ranks, experts_);
        SumUp(sums, blocks, layout_, window_.ranks);
        MOE_SYNC(V_S);
        const uint32_t sent = sums.GetValue(CountsLayout::Word(CountsLayout::kTotal)),
                       rows = sent < p_.capacity ? sent : p_.capacity;
        if (roles_.Describes(window_.core)) {
            // Eight triples of 12 bytes and eight scales of 4 end on a block boundary.
            Share share = RowShare(rows, 8, roles_.Describer(window_.core), roles_.describers);
            if (share.begin < share.end) {
                walk.Seek(share.begin, sums);
                RowDescriber<Rows>(pipe_, p_, t_, source_rows_).Run(walk, share);
            }
        }
        if (roles_.Pulls(window_.core)) Pull(walk, blocks, sums, sent, rows);
        if (window_.core == window_.cores - 1)
            WriteCounts(pipe_, walk, window_.ranks, experts_, p_.cumulative_counts != 0,
                        t_.ep_recv_counts, t_.expert_token_nums);
    }

 private:
    // Source by source, or, if rows end inside a block of expand_x, in its order: there the rows
    // that share a block lie together.
    __aicore__ inline void Pull(SlotWalk& slots, const LocalTensor<uint32_t>& blocks,
                                const LocalTensor<uint32_t>& sums, uint32_t sent, uint32_t rows) {
        const bool whole_blocks = row_bytes_ % kBlockBytes == 0;
        Stretch stretch =
            StretchOf(whole_blocks ? sent : rows, row_bytes_, window_.core, roles_.pullers);
        if (stretch.first >= stretch.end) return;
        RowPuller<Rows> puller(pipe_, p_, t_, source_rows_);
        if (!whole_blocks) {
            slots.Seek(stretch.first, sums);
            return puller.Run(slots, stretch);
        }
        Buffer places;
        pipe_->InitBuffer(places, SourceWalk::PlacesBytes(layout_));
        SourceWalk sources(blocks, places.Get<uint32_t>(), layout_, window_.rank, window_.ranks,
                           experts_);
        sources.Seek(stretch.first, sums);
        puller.Run(sources, stretch);
    }

    TPipe* pipe_;
    Window& window_;
    const Parameters& p_;
    const DispatchTensors& t_;
    Routing routing_;
    CountsLayout layout_;
    const Rows source_rows_;
    uint32_t epoch_, experts_, row_bytes_;
    const Roles roles_;
};

}  // namespace ascend_moe
