// The order in which a rank pulls its rows: source by source, from the own rank on; of a source
// expert by expert, as its list is. Cores that divide this order read all sources at any moment,
// each the same share of every rank, and a core hardly ever changes its source. docs/kernels.md
// section 6.
#pragma once

#include "slot_walk.h"

namespace ascend_moe {

// The counts of all sources, loaded; walks the slots (local expert, source). Begin with Seek.
class SourceWalk {
 public:
    uint32_t expert = 0, source = 0;
    uint32_t begin = 0, count = 0;  // rows of the slot, in this order

    // UB for the rows that come before in expand_x.
    __aicore__ inline static uint32_t PlacesBytes(CountsLayout layout) {
        return 2 * layout.blocks * kBlockBytes;
    }

    __aicore__ inline SourceWalk(const LocalTensor<uint32_t>& blocks,
                                 const LocalTensor<uint32_t>& places, CountsLayout layout,
                                 uint32_t rank, uint32_t ranks, uint32_t experts)
        : blocks_(blocks),
          firsts_(places),
          places_(places[layout.blocks * kBlockWords]),
          layout_(layout),
          rank_(rank),
          ranks_(ranks),
          experts_(experts) {}

    // To the slot of a row that is there. `sums`: of all sources (SumUp); used up.
    __aicore__ inline void Seek(uint32_t row, const LocalTensor<uint32_t>& sums) {
        Copy(firsts_, sums);
        MOE_SYNC(V_S);
        uint32_t before = 0;
        for (expert = 0; expert < experts_; ++expert) {
            uint32_t word = CountsLayout::Word(CountsLayout::kExperts + expert),
                     rows = firsts_.GetValue(word);
            firsts_.SetValue(word, before);
            before += rows;
        }
        begin = 0;
        for (source = rank_;; source = Following(source)) {
            uint32_t rows = Count(source, CountsLayout::kTotal);
            if (row < begin + rows) break;
            begin += rows;
        }
        MOE_SYNC(S_V);
        if (source == 0) {
            Copy(places_, firsts_);
        } else {
            SumUp(sums, blocks_, layout_, source);
            Add(firsts_, sums);
        }
        MOE_SYNC(V_S);
        EnterSource();
        while (begin + count <= row) Next();
    }

    __aicore__ inline void Next() {
        begin += count;
        in_list_ += count;
        if (++expert == experts_) {
            MOE_SYNC(S_V);
            if (source + 1 == ranks_) {
                Copy(places_, firsts_);
            } else {
                Add(places_, blocks_[source * layout_.blocks * kBlockWords]);
            }
            MOE_SYNC(V_S);
            source = Following(source);
            EnterSource();
        } else {
            Read();
        }
    }

    // The slot's first row in expand_x: behind all rows of the experts before, and those of its
    // expert from the sources before.
    __aicore__ inline uint32_t Row() const {
        return places_.GetValue(CountsLayout::Word(CountsLayout::kExperts + expert));
    }
    // Where the slot's rows start in the list of its source.
    __aicore__ inline uint32_t InList() const { return in_list_; }

 private:
    __aicore__ inline uint32_t Count(uint32_t of, uint32_t entry) const {
        return blocks_.GetValue(of * layout_.blocks * kBlockWords + CountsLayout::Word(entry));
    }
    __aicore__ inline uint32_t Following(uint32_t of) const {
        return of + 1 == ranks_ ? 0 : of + 1;
    }
    __aicore__ inline void EnterSource() {
        expert = in_list_ = 0;
        Read();
    }
    __aicore__ inline void Read() { count = Count(source, CountsLayout::kExperts + expert); }
    __aicore__ inline void Copy(const LocalTensor<uint32_t>& to,
                                const LocalTensor<uint32_t>& from) {
        AscendC::Adds(to.ReinterpretCast<int32_t>(), from.ReinterpretCast<int32_t>(), 0,
                      layout_.blocks * kBlockWords);
    }
    __aicore__ inline void Add(const LocalTensor<uint32_t>& before,
                               const LocalTensor<uint32_t>& counts) {
        AscendC::Add(places_.ReinterpretCast<int32_t>(), before.ReinterpretCast<int32_t>(),
                     counts.ReinterpretCast<int32_t>(), layout_.blocks * kBlockWords);
    }

    LocalTensor<uint32_t> blocks_, firsts_, places_;
    CountsLayout layout_;
    uint32_t rank_, ranks_, experts_;
    uint32_t in_list_ = 0;
};

}  // namespace ascend_moe
