// Dispatch: rows from the sources' windows into expand_x.
#pragma once

#include "list_parts.h"

namespace ascend_moe {

// Where the rows of a source are: in its stage, or, if they are this rank's own, in x; and what
// belongs to them.
class StagedRows {
 public:
    static constexpr bool kTriples = true;

    __aicore__ inline StagedRows(const Window& window, const Parameters& p,
                                 const DispatchTensors& t, uint64_t stage_offset,
                                 uint64_t index_offset)
        : window_(window),
          p_(p),
          x_(t.x),
          stage_offset_(stage_offset),
          index_offset_(index_offset) {}

    __aicore__ inline uint64_t Row(uint32_t source, uint32_t pair, uint32_t) const {
        if (source == window_.rank && !p_.quant)
            return x_ + static_cast<uint64_t>(TokenOf(pair)) * RowBytes(p_);
        return window_.Data(source, stage_offset_) + StagedAt(p_, pair);
    }
    // In the own window.
    __aicore__ inline uint64_t List(uint32_t source) const {
        return window_.Data(window_.rank, index_offset_ + source * PairsBytes(p_));
    }
    __aicore__ inline ScaleTable Scales(uint32_t source) const {
        return {window_.Data(source, index_offset_ + window_.whole * PairsBytes(p_)),
                StagedScaleWords(p_, window_.whole)};
    }
    __aicore__ inline uint64_t Scale(uint32_t source, uint32_t pair, uint32_t) const {
        const ScaleTable table = Scales(source);
        const uint32_t slot = StageRowsPerToken(p_) == 1 ? 0 : SlotOf(pair);
        return table.address + 4ull * (TokenOf(pair) * table.words + slot);
    }

 private:
    const Window& window_;
    const Parameters& p_;
    uint64_t x_, stage_offset_, index_offset_;
};

// Rows says where a row is, by source, pair and place in the list, and where lists are.
template <typename Rows>
class RowPuller {
 public:
    __aicore__ inline RowPuller(TPipe* pipe, const Parameters& p, const DispatchTensors& t,
                                const Rows& source_rows)
        : t_(t), source_rows_(source_rows), capacity_(p.capacity), row_bytes_(RowBytes(p)) {
        pipe->InitBuffer(rows_, 4, row_bytes_);
        parts_.InitBuffers(pipe);
    }

    // The walk is in the order that the stretch is of.
    template <typename Walk>
    __aicore__ inline void Run(Walk& walk, const Stretch& stretch) {
        for (uint32_t first = stretch.first; first < stretch.end; first += ListParts::kBatch) {
            uint32_t end =
                first + ListParts::kBatch < stretch.end ? first + ListParts::kBatch : stretch.end;
            uint32_t segments = parts_.Read(source_rows_, walk, first, end);
            for (uint32_t i = 0; i < segments; ++i) Pull(parts_.SegmentOf(i), stretch);
        }
    }

 private:
    __aicore__ inline void Pull(const Segment& segment, const Stretch& stretch) {
        for (uint32_t i = 0; i < segment.count && segment.row + i < capacity_; ++i) {
            uint64_t from =
                source_rows_.Row(segment.source, parts_.Pair(segment.at + i), segment.in_list + i);
            uint32_t begin = stretch.From(segment.first + i),
                     bytes = stretch.To(segment.first + i, row_bytes_) - begin;
            LocalTensor<uint8_t> buffer = rows_.AllocTensor<uint8_t>();
            Load(buffer, At<uint8_t>(from + begin), bytes);
            rows_.EnQue(buffer);
            buffer = rows_.DeQue<uint8_t>();
            uint64_t to = static_cast<uint64_t>(segment.row + i) * row_bytes_ + begin;
            Store(At<uint8_t>(t_.expand_x + to), buffer, bytes);
            rows_.FreeTensor(buffer);
        }
    }

    const DispatchTensors& t_;
    const Rows& source_rows_;
    uint32_t capacity_, row_bytes_;
    AscendC::TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> rows_;
    ListParts parts_;
};

}  // namespace ascend_moe
