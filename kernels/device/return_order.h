// Combine: the rows of expand_x rank by rank, where they go back to, instead of expert by expert.
//
// expand_x has the rows of a source behind each other only within an expert. Cores that divide it
// as it lies walk over all ranks, some faster than others, and gather at whichever port is loaded:
// it holds them up until the others have come as well. So the rows are divided in the order of the
// ranks they go to, beginning with the next rank: all cores of all ranks together then write to
// every rank alike at any time, and a core stays with its rank.
//
// ep_send_counts are the ends of the slots (local expert, source). Added up over the experts they
// are, but for a constant, the ends of the ranks in that order; so a core finds its first row by
// bisection. The counts only divide the work: where a row goes is in assist_info, and of counts
// that are no dispatch's some rows are left out, none is read outside of expand_x.
#pragma once

#include "routing.h"

namespace ascend_moe {

// Rows that are neighbours in expand_x.
struct RowRun {
    uint32_t first, count;
    uint32_t source;  // whose they should be
};

class ReturnOrder {
 public:
    __aicore__ inline ReturnOrder(const Window& window, const Parameters& p)
        : ranks_(window.ranks),
          rank_(window.rank),
          experts_(Routing(p, window.rank).ExpertsOn(window.rank)),
          pitch_(AlignUp(window.ranks, kBlockWords)),
          capacity_(p.capacity) {}

    __aicore__ inline void InitBuffers(TPipe* pipe) {
        pipe->InitBuffer(ends_, 4 * experts_ * pitch_);
        pipe->InitBuffer(sums_, 4 * CeilDiv(experts_, 2) * pitch_);
    }

    __aicore__ inline void Read(uint64_t ep_send_counts) {
        AscendC::DataCopyPad(
            ends_.Get<uint32_t>(), At<uint32_t>(ep_send_counts),
            AscendC::DataCopyExtParams{static_cast<uint16_t>(experts_), 4 * ranks_, 0, 0, 0},
            AscendC::DataCopyPadExtParams<uint32_t>{});
        MOE_SYNC(MTE2_V);
        SumUp();
        MOE_SYNC(V_S);
        const uint32_t total = End(experts_ - 1, ranks_ - 1);
        excess_ = sums_.Get<uint32_t>().GetValue(ranks_ - 1) - total;
        total_ = total < capacity_ ? total : capacity_;
        const uint32_t own = Before(rank_ + 1) - Before(rank_);
        own_ = own < total_ ? own : total_;
    }

    // Rows in all; the last of them, in this order, are the own ones.
    __aicore__ inline uint32_t Total() const { return total_; }
    __aicore__ inline uint32_t Own() const { return own_; }

    // To a row of this order, which is below Total().
    __aicore__ inline void Seek(uint32_t place) {
        uint32_t row = Before(rank_ + 1) + place;
        if (row >= total_) row -= total_;
        uint32_t low = 0, high = ranks_;
        while (high - low > 1) {
            const uint32_t middle = (low + high) / 2;
            if (Before(middle) <= row) {
                low = middle;
            } else {
                high = middle;
            }
        }
        source_ = low;
        expert_ = 0;
        skip_ = row - Before(low);
        slots_left_ = (ranks_ + 1) * experts_;
    }

    // The next rows, at most so many; none only when the counts are no dispatch's.
    __aicore__ inline RowRun Next(uint32_t most) {
        for (; slots_left_ > 0; --slots_left_) {
            const uint32_t begin = Begin(expert_, source_), end = End(expert_, source_);
            if (begin < end && end <= capacity_ && skip_ < end - begin) {
                const uint32_t first = begin + skip_, left = end - first;
                const uint32_t count = left < most ? left : most;
                skip_ += count;
                return {first, count, source_};
            }
            if (begin < end) skip_ -= end - begin;
            ++expert_;
            if (expert_ < experts_) continue;
            expert_ = skip_ = 0;
            source_ = source_ + 1 < ranks_ ? source_ + 1 : 0;
        }
        return {0, 0, 0};
    }

 private:
    // Half of the experts onto the other half, until one is left.
    __aicore__ inline void SumUp() const {
        LocalTensor<int32_t> to = sums_.Get<int32_t>(), from = ends_.Get<int32_t>();
        uint32_t left = experts_;
        for (bool first = true; first || left > 1; first = false) {
            const uint32_t added = left / 2, kept = left - added;
            for (uint32_t i = 0; i < added; ++i)
                AscendC::Add(to[i * pitch_], from[i * pitch_], from[(kept + i) * pitch_], ranks_);
            if (first && kept > added)
                AscendC::Adds(to[added * pitch_], from[added * pitch_], 0, ranks_);
            MOE_VBARRIER();
            from = to;
            left = kept;
        }
    }

    __aicore__ inline uint32_t End(uint32_t expert, uint32_t source) const {
        return ends_.Get<uint32_t>().GetValue(expert * pitch_ + source);
    }
    __aicore__ inline uint32_t Begin(uint32_t expert, uint32_t source) const {
        if (source > 0) return End(expert, source - 1);
        return expert > 0 ? End(expert - 1, ranks_ - 1) : 0;
    }
    // Rows of the ranks before this one.
    __aicore__ inline uint32_t Before(uint32_t source) const {
        return source == 0 ? 0 : sums_.Get<uint32_t>().GetValue(source - 1) - excess_;
    }

    const uint32_t ranks_, rank_, experts_, pitch_, capacity_;
    uint32_t total_ = 0, own_ = 0;
    uint32_t excess_ = 0;  // in the sum of every rank: for each expert, the rows of those before
    uint32_t source_ = 0, expert_ = 0, skip_ = 0, slots_left_ = 0;
    mutable Buffer ends_, sums_;
};

}  // namespace ascend_moe
