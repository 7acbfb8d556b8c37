// Dispatch: the parts of the sources' lists that speak of some rows of expand_x.
#pragma once

#include "source_walk.h"

namespace ascend_moe {

// Consecutive rows of one slot.
struct Segment {
    uint32_t first, row;  // in the order of the walk, and in expand_x
    uint32_t count, source;
    uint32_t at;       // where its pairs are in the buffer
    uint32_t in_list;  // where they are in the source's list
};

class ListParts {
 public:
    static constexpr uint32_t kBatch = 128;  // rows at a time

    __aicore__ inline void InitBuffers(TPipe* pipe) {
        pipe->InitBuffer(segments_, 4 * kWords * kBatch);
        pipe->InitBuffer(pairs_, 4 * kBatch * kBlockWords);
    }

    // Of rows [first, end) in the order of the walk, a SlotWalk or a SourceWalk, from where it is.
    // `rows` says where lists are; what lies together in one of them is loaded together. Returns
    // the number of segments.
    template <typename Rows, typename Walk>
    __aicore__ inline uint32_t Read(const Rows& rows, Walk& walk, uint32_t first, uint32_t end) {
        LocalTensor<uint32_t> segments = segments_.Get<uint32_t>();
        Run run{0, 0, 0, 0};
        uint32_t number = 0;
        MOE_SYNC(S_MTE2);
        while (true) {
            uint32_t from = walk.begin > first ? walk.begin : first;
            uint32_t to = walk.begin + walk.count < end ? walk.begin + walk.count : end;
            if (from < to) {
                uint32_t skipped = from - walk.begin, in_list = walk.InList() + skipped,
                         segment = kWords * number;
                if (walk.source != run.source || in_list != run.in_list + run.count) {
                    LoadRun(rows, run);
                    run = {walk.source, in_list, 0, run.at + AlignUp(run.count, kBlockWords)};
                }
                segments.SetValue(segment, from);
                segments.SetValue(segment + 1, walk.Row() + skipped);
                segments.SetValue(segment + 2, to - from);
                segments.SetValue(segment + 3, walk.source);
                segments.SetValue(segment + 4, run.at + run.count);
                segments.SetValue(segment + 5, in_list);
                run.count += to - from;
                ++number;
            }
            if (walk.begin + walk.count >= end) break;
            walk.Next();
        }
        LoadRun(rows, run);
        MOE_SYNC(MTE2_S);
        return number;
    }

    __aicore__ inline Segment SegmentOf(uint32_t index) {
        LocalTensor<uint32_t> segments = segments_.Get<uint32_t>();
        uint32_t at = kWords * index;
        return {segments.GetValue(at),     segments.GetValue(at + 1), segments.GetValue(at + 2),
                segments.GetValue(at + 3), segments.GetValue(at + 4), segments.GetValue(at + 5)};
    }
    __aicore__ inline uint32_t Pair(uint32_t at) { return pairs_.Get<uint32_t>().GetValue(at); }

 private:
    static constexpr uint32_t kWords = 6;  // of a Segment, in UB

    // What lies together in a list.
    struct Run {
        uint32_t source, in_list, count, at;
    };
    template <typename Rows>
    __aicore__ inline void LoadRun(const Rows& rows, const Run& run) {
        if (run.count == 0) return;
        Load(pairs_.Get<uint32_t>()[run.at],
             At<uint32_t>(rows.List(run.source) + 4ull * run.in_list), run.count);
    }

    Buffer segments_, pairs_;
};

__aicore__ inline uint32_t TokenOf(uint32_t pair) { return pair >> kSlotBits; }
__aicore__ inline uint32_t SlotOf(uint32_t pair) { return pair & ((1 << kSlotBits) - 1); }

}  // namespace ascend_moe
