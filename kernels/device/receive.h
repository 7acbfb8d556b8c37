// Dispatch, the destination's work: positions from the counts, rows from the sources' windows into
// expand_x.
#pragma once

#include "publish.h"
#include "waited.h"

namespace ascend_moe {

// The counts of all sources, loaded; walks the slots (local expert, source) in the order of
// expand_x.
class SlotWalk {
 public:
    uint32_t expert = 0, source = 0;
    uint32_t begin = 0, count = 0;  // rows of the slot
    uint32_t in_list = 0;           // where they start in the source's list

    __aicore__ inline SlotWalk(const LocalTensor<uint32_t>& blocks,
                               const LocalTensor<uint32_t>& taken, CountsLayout layout,
                               uint32_t ranks)
        : blocks_(blocks), taken_(taken), layout_(layout), ranks_(ranks) {}

    __aicore__ inline uint32_t Total() const {
        uint32_t rows = 0;
        for (uint32_t r = 0; r < ranks_; ++r)
            rows += blocks_.GetValue(r * layout_.blocks * kBlockWords +
                                     CountsLayout::Word(CountsLayout::kTotal));
        return rows;
    }
    __aicore__ inline void Restart() {
        for (uint32_t r = 0; r < ranks_; ++r) taken_.SetValue(r, 0);
        expert = source = begin = 0;
        Read();
    }
    __aicore__ inline void Next() {
        begin += count;
        taken_.SetValue(source, in_list + count);
        if (++source == ranks_) {
            source = 0;
            ++expert;
        }
        Read();
    }

 private:
    __aicore__ inline void Read() {
        if (CountsLayout::kExperts + expert >= layout_.blocks * kPayloadWords) return;
        count = blocks_.GetValue(source * layout_.blocks * kBlockWords +
                                 CountsLayout::Word(CountsLayout::kExperts + expert));
        in_list = taken_.GetValue(source);
    }
    LocalTensor<uint32_t> blocks_, taken_;
    CountsLayout layout_;
    uint32_t ranks_;
};

// ep_recv_counts: inclusive prefix sums over the slots. expert_token_nums: int64 rows per expert,
// or their running sum.
__aicore__ inline void WriteCounts(TPipe* pipe, SlotWalk& walk, uint32_t ranks, uint32_t experts,
                                   bool cumulative, uint64_t ep_recv_counts,
                                   uint64_t expert_token_nums) {
    Buffer prefix_buffer, nums_buffer;
    pipe->InitBuffer(prefix_buffer, 4 * ranks * experts);
    pipe->InitBuffer(nums_buffer, 8 * experts);
    LocalTensor<int32_t> prefix = prefix_buffer.Get<int32_t>(), nums = nums_buffer.Get<int32_t>();
    walk.Restart();
    uint32_t before = 0;
    for (uint32_t expert = 0; expert < experts; ++expert) {
        for (uint32_t source = 0; source < ranks; ++source) {
            prefix.SetValue(expert * ranks + source, walk.begin + walk.count);
            walk.Next();
        }
        nums.SetValue(2 * expert, walk.begin - before);
        nums.SetValue(2 * expert + 1, 0);
        if (!cumulative) before = walk.begin;
    }
    MOE_SYNC(S_MTE3);
    Store(At<int32_t>(ep_recv_counts), prefix, ranks * experts);
    Store(At<int32_t>(expert_token_nums), nums, 2 * experts);
}

// Where the rows of a source are: in its stage, or, if they are this rank's own, in x.
class StagedRows {
 public:
    static constexpr bool kTriples = true;

    __aicore__ inline StagedRows(const Window& window, const Parameters& p,
                                 const DispatchTensors& t, uint64_t stage_offset)
        : window_(window), p_(p), x_(t.x), stage_offset_(stage_offset) {}

    __aicore__ inline uint64_t Row(uint32_t source, uint32_t pair, uint32_t) const {
        if (source == window_.rank && !p_.quant)
            return x_ + static_cast<uint64_t>(pair >> kSlotBits) * RowBytes(p_);
        return window_.Data(source, stage_offset_) + StagedAt(p_, pair);
    }

 private:
    const Window& window_;
    const Parameters& p_;
    uint64_t x_, stage_offset_;
};

// Rows says where a row is, by source, pair and place in the list, and whether the triples of A3
// are the handle.
template <typename Rows>
class Receiver {
 public:
    __aicore__ inline Receiver(TPipe* pipe, Window& window, const Parameters& p,
                               const DispatchTensors& t, const Rows& source_rows,
                               uint64_t lists_offset, uint32_t epoch)
        : pipe_(pipe),
          window_(window),
          p_(p),
          t_(t),
          routing_(p, window.rank),
          layout_(p),
          source_rows_(source_rows),
          lists_offset_(lists_offset),
          epoch_(epoch),
          experts_(routing_.ExpertsOn(window.rank)),
          row_bytes_(RowBytes(p)) {}

    // The cores share the waiting; afterwards every core may read all counts.
    __aicore__ inline void WaitForCounts() {
        Share peers = ShareOf(window_.ranks, window_.core, window_.cores);
        Waited waited(window_, Measured(p_));
        waited.Watch(pipe_, MOE_FLAG("counts"), layout_.Offset(epoch_ & 1, 0), layout_.blocks,
                     peers, epoch_);
        waited.UntilAll();
        waited.MergeInto(t_.performance_info, p_.waits);
        LocalTensor<uint32_t> blocks = window_.Wait(
            MOE_FLAG("counts"), layout_.Offset(epoch_ & 1, peers.begin),
            (peers.end - peers.begin) * layout_.blocks, layout_.blocks, peers.begin, epoch_);
        for (uint32_t peer = peers.begin; peer < peers.end && !window_.failed; ++peer) {
            window_.Compare(blocks[(peer - peers.begin) * layout_.blocks * kBlockWords],
                            CountsLayout::Word(CountsLayout::kMark), MarkOf(p_), peer);
        }
        MOE_SYNC(S_MTE2);
    }

    __aicore__ inline void Run() {
        Buffer block_buffer, taken_buffer;
        uint32_t words = window_.ranks * layout_.blocks * kBlockWords;
        pipe_->InitBuffer(block_buffer, 4 * words);
        pipe_->InitBuffer(taken_buffer, 4 * window_.ranks);
        LocalTensor<uint32_t> blocks = block_buffer.Get<uint32_t>();
        window_.LoadFailures();
        {
            PollScope poll;  // after a timeout there may be blocks nobody wrote
            Load(blocks, At<uint32_t>(window_.Control(window_.rank, layout_.Offset(epoch_ & 1, 0))),
                 words);
        }
        MOE_SYNC(MTE2_S);
        window_.ShareFailure();
        if (window_.failed) return;
        SlotWalk walk(blocks, taken_buffer.Get<uint32_t>(), layout_, window_.ranks);
        uint32_t rows = walk.Total();
        if (rows > p_.capacity) rows = p_.capacity;
        // Eight triples of 12 bytes and eight scales of 4 end on a block boundary.
        Share share = RowShare(rows, RowGroup(row_bytes_, 8), window_.core, window_.cores);
        if (share.begin < share.end) Pull(walk, share);
        if (window_.core == window_.cores - 1)
            WriteCounts(pipe_, walk, window_.ranks, experts_, p_.cumulative_counts != 0,
                        t_.ep_recv_counts, t_.expert_token_nums);
    }

 private:
    static constexpr uint32_t kBatch =
        256;  // rows whose triples and scales are written together; a multiple of every row group

    // Consecutive rows of one slot; words in UB.
    enum SegmentWord : uint32_t { kRow = 0, kCount, kSource, kAt, kInList, kSegmentWords };

    __aicore__ inline void Pull(SlotWalk& walk, Share share) {
        pipe_->InitBuffer(rows_, 4, row_bytes_);
        pipe_->InitBuffer(pairs_, 4 * kBatch * kBlockWords);
        pipe_->InitBuffer(segments_, 4 * kSegmentWords * kBatch);
        if (Rows::kTriples) pipe_->InitBuffer(triples_, 12 * kBatch);
        if (HasScales(p_)) {
            pipe_->InitBuffer(list_scales_, 4 * kBatch * kBlockWords);
            pipe_->InitBuffer(row_scales_, 4 * kBatch);
        }
        walk.Restart();
        for (uint32_t first = share.begin; first < share.end; first += kBatch) {
            uint32_t end = first + kBatch < share.end ? first + kBatch : share.end;
            uint32_t segments = LoadLists(walk, first, end);
            MOE_SYNC(MTE2_S);
            for (uint32_t i = 0; i < segments; ++i) PullSegment(i, first);
            WriteBatch(first, end - first);
        }
    }

    // The parts of the sources' lists that describe rows [first, end). Lists are in the own window.
    __aicore__ inline uint32_t LoadLists(SlotWalk& walk, uint32_t first, uint32_t end) {
        LocalTensor<uint32_t> segments = segments_.Get<uint32_t>(), pairs = pairs_.Get<uint32_t>();
        uint32_t number = 0, at = 0;
        MOE_SYNC(S_MTE2);
        while (true) {
            uint32_t from = walk.begin > first ? walk.begin : first;
            uint32_t to = walk.begin + walk.count < end ? walk.begin + walk.count : end;
            if (from < to) {
                uint32_t in_list = walk.in_list + from - walk.begin;
                uint64_t list =
                    window_.Data(window_.rank, lists_offset_ + walk.source * ListPitch(p_)) +
                    4ull * in_list;
                Load(pairs[at], At<uint32_t>(list), to - from);
                if (HasScales(p_))
                    Load(list_scales_.Get<float>()[at], At<float>(list + 4ull * ListRows(p_)),
                         to - from);
                uint32_t segment = number * kSegmentWords;
                segments.SetValue(segment + kRow, from);
                segments.SetValue(segment + kCount, to - from);
                segments.SetValue(segment + kSource, walk.source);
                segments.SetValue(segment + kAt, at);
                segments.SetValue(segment + kInList, in_list);
                at += AlignUp(to - from, kBlockWords);
                ++number;
            }
            if (walk.begin + walk.count >= end) return number;
            walk.Next();
        }
    }

    __aicore__ inline void PullSegment(uint32_t index, uint32_t first) {
        LocalTensor<uint32_t> segments = segments_.Get<uint32_t>(), pairs = pairs_.Get<uint32_t>();
        uint32_t segment = index * kSegmentWords;
        uint32_t row = segments.GetValue(segment + kRow),
                 count = segments.GetValue(segment + kCount);
        uint32_t source = segments.GetValue(segment + kSource),
                 at = segments.GetValue(segment + kAt),
                 in_list = segments.GetValue(segment + kInList);
        for (uint32_t i = 0; i < count; ++i) {
            uint32_t pair = pairs.GetValue(at + i), in_batch = row + i - first;
            if (Rows::kTriples) NoteTriple(in_batch, source, pair);
            if (HasScales(p_))
                row_scales_.Get<float>().SetValue(in_batch,
                                                  list_scales_.Get<float>().GetValue(at + i));
            LocalTensor<uint8_t> buffer = rows_.AllocTensor<uint8_t>();
            Load(buffer, At<uint8_t>(source_rows_.Row(source, pair, in_list + i)), row_bytes_);
            rows_.EnQue(buffer);
            buffer = rows_.DeQue<uint8_t>();
            Store(At<uint8_t>(t_.expand_x + static_cast<uint64_t>(row + i) * row_bytes_), buffer,
                  row_bytes_);
            rows_.FreeTensor(buffer);
        }
    }

    __aicore__ inline void NoteTriple(uint32_t in_batch, uint32_t source, uint32_t pair) {
        LocalTensor<uint32_t> triples = triples_.Get<uint32_t>();
        triples.SetValue(3 * in_batch, source);
        triples.SetValue(3 * in_batch + 1, pair >> kSlotBits);
        triples.SetValue(3 * in_batch + 2, pair & ((1 << kSlotBits) - 1));
    }

    __aicore__ inline void WriteBatch(uint32_t first, uint32_t count) {
        MOE_SYNC(S_MTE3);
        if (Rows::kTriples)
            Store(At<int32_t>(t_.assist_info + 12ull * first), triples_.Get<int32_t>(), 3 * count);
        if (HasScales(p_))
            Store(At<float>(t_.dynamic_scales + 4ull * first), row_scales_.Get<float>(), count);
        MOE_SYNC(MTE3_S);
    }

    TPipe* pipe_;
    Window& window_;
    const Parameters& p_;
    const DispatchTensors& t_;
    Routing routing_;
    CountsLayout layout_;
    const Rows source_rows_;
    uint64_t lists_offset_;
    uint32_t epoch_, experts_, row_bytes_;
    AscendC::TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> rows_;
    Buffer pairs_, list_scales_, segments_, triples_, row_scales_;
};

}  // namespace ascend_moe
