// Dispatch: what the outputs say of the rows in expand_x: where each is from, and its scale.
#pragma once

#include "list_parts.h"

namespace ascend_moe {

// With the triples of A3, or, where those are not the handle, without.
template <bool kTriples>
class RowDescriber {
 public:
    __aicore__ inline RowDescriber(TPipe* pipe, const Window& window, const Parameters& p,
                                   const DispatchTensors& t, uint64_t lists_offset)
        : window_(window), p_(p), t_(t), lists_offset_(lists_offset) {
        if (kTriples) pipe->InitBuffer(triples_, 12 * ListParts::kBatch);
        if (HasScales(p)) pipe->InitBuffer(scales_, 4 * ListParts::kBatch);
        parts_.InitBuffers(pipe, p, HasScales(p));
    }

    __aicore__ inline void Run(SlotWalk& walk, Share share) {
        for (uint32_t first = share.begin; first < share.end; first += ListParts::kBatch) {
            uint32_t end =
                first + ListParts::kBatch < share.end ? first + ListParts::kBatch : share.end;
            uint32_t segments = parts_.Read(window_, lists_offset_, walk, first, end);
            for (uint32_t i = 0; i < segments; ++i) Describe(parts_.SegmentOf(i), first);
            MOE_SYNC(S_MTE3);
            if (kTriples)
                Store(At<int32_t>(t_.assist_info + 12ull * first), triples_.Get<int32_t>(),
                      3 * (end - first));
            if (HasScales(p_))
                Store(At<float>(t_.dynamic_scales + 4ull * first), scales_.Get<float>(),
                      end - first);
            MOE_SYNC(MTE3_S);
        }
    }

 private:
    __aicore__ inline void Describe(Segment segment, uint32_t first) {
        for (uint32_t i = 0; i < segment.count; ++i) {
            uint32_t pair = parts_.Pair(segment.at + i), place = segment.row + i - first;
            if (kTriples) NoteTriple(place, segment.source, pair);
            if (HasScales(p_)) scales_.Get<float>().SetValue(place, parts_.Scale(segment.at + i));
        }
    }

    __aicore__ inline void NoteTriple(uint32_t place, uint32_t source, uint32_t pair) {
        LocalTensor<uint32_t> triples = triples_.Get<uint32_t>();
        triples.SetValue(3 * place, source);
        triples.SetValue(3 * place + 1, TokenOf(pair));
        triples.SetValue(3 * place + 2, SlotOf(pair));
    }

    const Window& window_;
    const Parameters& p_;
    const DispatchTensors& t_;
    uint64_t lists_offset_;
    Buffer triples_, scales_;
    ListParts parts_;
};

}  // namespace ascend_moe
