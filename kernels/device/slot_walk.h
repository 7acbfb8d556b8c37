// Where rows are, by the counts of all sources: in expand_x expert by expert and source by source,
// in the list of a source expert by expert.
#pragma once

#include "publish.h"

namespace ascend_moe {

// The counts of the first sources of `blocks` added up, as the blocks of one: half the sources onto
// the other half until one is left. Tags are added as well, and nobody reads that. `sums` has room
// for half of all sources, rounded up.
__aicore__ inline void SumUp(const LocalTensor<uint32_t>& sums, const LocalTensor<uint32_t>& blocks,
                             CountsLayout layout, uint32_t sources) {
    LocalTensor<int32_t> to = sums.ReinterpretCast<int32_t>(),
                         from = blocks.ReinterpretCast<int32_t>();
    uint32_t width = layout.blocks * kBlockWords, left = sources;
    for (bool first = true; first || left > 1; first = false) {
        uint32_t added = left / 2, kept = left - added;
        if (added > 0) AscendC::Add(to, from, from[kept * width], added * width);
        if (first && kept > added) AscendC::Adds(to[added * width], from[added * width], 0, width);
        MOE_VBARRIER();
        from = to;
        left = kept;
    }
}
__aicore__ inline uint32_t SumsBytes(CountsLayout layout, uint32_t ranks) {
    return CeilDiv(ranks, 2) * layout.blocks * kBlockBytes;
}

// The counts of all sources, loaded; walks the slots (local expert, source) in the order of
// expand_x. Begin with Restart or Seek.
class SlotWalk {
 public:
    uint32_t expert = 0, source = 0;
    uint32_t begin = 0, count = 0;  // rows of the slot

    // UB for what is known of the lists of the sources.
    __aicore__ inline static uint32_t TakenBytes(uint32_t ranks) { return 8 * ranks; }

    __aicore__ inline SlotWalk(const LocalTensor<uint32_t>& blocks,
                               const LocalTensor<uint32_t>& taken, CountsLayout layout,
                               uint32_t ranks, uint32_t experts)
        : blocks_(blocks), taken_(taken), layout_(layout), ranks_(ranks), experts_(experts) {}

    __aicore__ inline uint32_t Total() const {
        uint32_t rows = 0;
        for (uint32_t r = 0; r < ranks_; ++r) rows += Count(r, CountsLayout::kTotal);
        return rows;
    }
    __aicore__ inline void Restart() {
        ForgetLists();
        expert = source = begin = 0;
        Read();
    }
    // To the slot of a row that is there. `sums`: of all sources (SumUp).
    __aicore__ inline void Seek(uint32_t row, const LocalTensor<uint32_t>& sums) {
        ForgetLists();
        expert = source = begin = 0;
        for (; expert + 1 < experts_; ++expert) {
            uint32_t rows = sums.GetValue(CountsLayout::Word(CountsLayout::kExperts + expert));
            if (row < begin + rows) break;
            begin += rows;
        }
        for (Read(); begin + count <= row && source + 1 < ranks_; Read()) {
            begin += count;
            ++source;
        }
    }
    __aicore__ inline void Next() {
        begin += count;
        if (++source == ranks_) {
            source = 0;
            ++expert;
        }
        Read();
    }
    // The slot's first row in expand_x.
    __aicore__ inline uint32_t Row() const { return begin; }
    // Where the slot's rows start in the list of its source: behind those of the experts before.
    // What is added up is kept, so a walk adds every count once.
    __aicore__ inline uint32_t InList() {
        uint32_t rows = taken_.GetValue(2 * source);
        for (uint32_t e = taken_.GetValue(2 * source + 1); e < expert; ++e)
            rows += Count(source, CountsLayout::kExperts + e);
        taken_.SetValue(2 * source, rows);
        taken_.SetValue(2 * source + 1, expert);
        return rows;
    }

 private:
    __aicore__ inline uint32_t Count(uint32_t of, uint32_t entry) const {
        return blocks_.GetValue(of * layout_.blocks * kBlockWords + CountsLayout::Word(entry));
    }
    __aicore__ inline void Read() {
        if (expert < experts_) count = Count(source, CountsLayout::kExperts + expert);
    }
    __aicore__ inline void ForgetLists() {
        MOE_SYNC(S_V);
        AscendC::Duplicate(taken_.ReinterpretCast<int32_t>(), 0, 2 * ranks_);
        MOE_SYNC(V_S);
    }

    LocalTensor<uint32_t> blocks_, taken_;
    CountsLayout layout_;
    uint32_t ranks_, experts_;
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

}  // namespace ascend_moe
