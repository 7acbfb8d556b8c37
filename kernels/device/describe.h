// Dispatch: what the outputs say of the rows in expand_x: where each is from, and its scale.
#pragma once

#include "list_parts.h"

namespace ascend_moe {

// Rows says where lists and scales are, and whether the triples of A3 are the handle.
template <typename Rows>
class RowDescriber {
 public:
    __aicore__ inline RowDescriber(TPipe* pipe, const Parameters& p, const DispatchTensors& t,
                                   const Rows& source_rows)
        : t_(t), source_rows_(source_rows), with_scales_(HasScales(p)) {
        if (Rows::kTriples) pipe->InitBuffer(triples_, 12 * ListParts::kBatch);
        if (with_scales_) {
            pipe->InitBuffer(loaded_, kBlockBytes * ListParts::kBatch);
            pipe->InitBuffer(scales_, 4 * ListParts::kBatch);
        }
        parts_.InitBuffers(pipe);
    }

    __aicore__ inline void Run(SlotWalk& walk, Share share) {
        for (uint32_t first = share.begin; first < share.end; first += ListParts::kBatch) {
            uint32_t end =
                first + ListParts::kBatch < share.end ? first + ListParts::kBatch : share.end;
            uint32_t segments = parts_.Read(source_rows_, walk, first, end);
            for (uint32_t i = 0; i < segments; ++i) Describe(parts_.SegmentOf(i), first);
            if (with_scales_) {
                MOE_SYNC(MTE2_S);
                for (uint32_t i = 0; i < end - first; ++i)
                    scales_.Get<float>().SetValue(i,
                                                  loaded_.Get<float>().GetValue(i * kBlockWords));
            }
            MOE_SYNC(S_MTE3);
            if (Rows::kTriples)
                Store(At<int32_t>(t_.assist_info + 12ull * first), triples_.Get<int32_t>(),
                      3 * (end - first));
            if (with_scales_)
                Store(At<float>(t_.dynamic_scales + 4ull * first), scales_.Get<float>(),
                      end - first);
            MOE_SYNC(MTE3_S);
        }
    }

 private:
    // Scales come one by one: rows that follow each other here are of different sources.
    __aicore__ inline void Describe(const Segment& segment, uint32_t first) {
        for (uint32_t i = 0; i < segment.count; ++i) {
            uint32_t pair = parts_.Pair(segment.at + i), place = segment.row + i - first;
            if (Rows::kTriples) NoteTriple(place, segment.source, pair);
            if (with_scales_)
                Load(loaded_.Get<float>()[place * kBlockWords],
                     At<float>(source_rows_.Scale(segment.source, pair, segment.in_list + i)), 1);
        }
    }

    __aicore__ inline void NoteTriple(uint32_t place, uint32_t source, uint32_t pair) {
        LocalTensor<uint32_t> triples = triples_.Get<uint32_t>();
        triples.SetValue(3 * place, source);
        triples.SetValue(3 * place + 1, TokenOf(pair));
        triples.SetValue(3 * place + 2, SlotOf(pair));
    }

    const DispatchTensors& t_;
    const Rows& source_rows_;
    bool with_scales_;
    Buffer triples_, loaded_, scales_;
    ListParts parts_;
};

}  // namespace ascend_moe
