// Dispatch with TP: the peer's rows behind the own ones, with their scales and counts. Own outputs
// are complete when this starts.
#pragma once

#include "stage.h"
#include "tp_lane.h"

namespace ascend_moe {

class TpGather {
 public:
    __aicore__ inline TpGather(TPipe* pipe, Window& window, const Parameters& p,
                               const DispatchTensors& t)
        : pipe_(pipe),
          window_(window),
          p_(p),
          t_(t),
          row_bytes_(p.hidden * (p.quant ? 1 : 2)),
          lane_(pipe, window, row_bytes_) {}

    __aicore__ inline void Run() {
        pipe_->InitBuffer(counts_, AlignUp(4 * window_.ranks, kBlockBytes));
        pipe_->InitBuffer(totals_, kBlockBytes);
        pipe_->InitBuffer(rows_, 4, AlignUp(row_bytes_, kBlockBytes) + kBlockBytes);
        pipe_->InitBuffer(scales_, 4 * kBatch);
        LocalTensor<uint32_t> prefix = counts_.Get<uint32_t>();
        Load(prefix, At<uint32_t>(t_.ep_recv_counts), window_.ranks);
        MOE_SYNC(MTE2_S);
        own_rows_ = prefix.GetValue(window_.ranks - 1);
        if (own_rows_ > p_.capacity) own_rows_ = p_.capacity;
        lane_.Meet(MOE_FLAG("TP meeting"));
        bool writes_counts = window_.core == window_.cores - 1;
        if (writes_counts && !window_.failed) SendCounts(prefix);
        uint32_t peer_rows = lane_.WaitFor(MOE_FLAG("TP counts"), kTpHeaderOffset);
        if (window_.failed) return;
        if (writes_counts) WriteCounts(prefix, peer_rows);
        lane_.Exchange(*this, Part(peer_rows, own_rows_), Part(own_rows_, peer_rows));
        FlushScales();
    }

    // A row of ours, and its scale in the block behind it.
    __aicore__ inline void Send(uint32_t row, uint64_t place) {
        LocalTensor<uint8_t> buffer = rows_.AllocTensor<uint8_t>();
        Load(buffer, At<uint8_t>(t_.expand_x + static_cast<uint64_t>(row) * row_bytes_),
             row_bytes_);
        uint32_t scale_at = AlignUp(row_bytes_, kBlockBytes);
        if (p_.quant) Load(buffer[scale_at], At<uint8_t>(t_.dynamic_scales + 4ull * row), 4);
        rows_.EnQue(buffer);
        buffer = rows_.DeQue<uint8_t>();
        Store(At<uint8_t>(place), buffer, row_bytes_);
        if (p_.quant) Store(At<uint8_t>(place + scale_at), buffer[scale_at], 4);
        rows_.FreeTensor(buffer);
    }

    __aicore__ inline void Receive(uint32_t row, uint64_t place) {
        if (own_rows_ + row >= p_.capacity) return;
        LocalTensor<uint8_t> buffer = rows_.AllocTensor<uint8_t>();
        Load(buffer, At<uint8_t>(place), row_bytes_);
        uint32_t scale_at = AlignUp(row_bytes_, kBlockBytes);
        if (p_.quant) Load(buffer[scale_at], At<uint8_t>(place + scale_at), 4);
        rows_.EnQue(buffer);
        buffer = rows_.DeQue<uint8_t>();
        Store(At<uint8_t>(t_.expand_x + static_cast<uint64_t>(own_rows_ + row) * row_bytes_),
              buffer, row_bytes_);
        if (p_.quant) {
            MOE_SYNC(MTE2_S);
            KeepScale(row, buffer[scale_at].ReinterpretCast<float>().GetValue(0));
            MOE_SYNC(S_MTE2);
        }
        rows_.FreeTensor(buffer);
    }

 private:
    static constexpr uint32_t kBatch = 256;  // scales written together

    // This core's part of `rows` rows that land behind `base` others: whole row groups of the
    // output, so that no block is shared.
    __aicore__ inline Share Part(uint32_t base, uint32_t rows) const {
        uint32_t group = RowGroup(row_bytes_, 8), first = base / group * group;
        Share share = RowShare(base + rows - first, group, window_.core, window_.cores);
        share.begin = share.begin + first > base ? share.begin + first - base : 0;
        share.end = share.end + first > base ? share.end + first - base : 0;
        return share;
    }

    __aicore__ inline void SendCounts(const LocalTensor<uint32_t>& prefix) {
        Store(At<uint32_t>(window_.OfTp(1 - window_.tp_rank, kTpPrefixOffset)), prefix,
              window_.ranks);
        lane_.Post(MOE_FLAG("TP counts"), kTpHeaderOffset, own_rows_);
    }

    __aicore__ inline void WriteCounts(const LocalTensor<uint32_t>& prefix, uint32_t peer_rows) {
        LocalTensor<uint32_t> totals = totals_.Get<uint32_t>();
        Load(prefix, At<uint32_t>(window_.OfTp(window_.tp_rank, kTpPrefixOffset)), window_.ranks);
        MOE_SYNC(MTE2_MTE3);
        Store(At<uint32_t>(t_.ep_recv_counts + 4ull * window_.ranks), prefix, window_.ranks);
        totals.SetValue(window_.tp_rank, own_rows_);
        totals.SetValue(1 - window_.tp_rank, peer_rows);
        MOE_SYNC(S_MTE3);
        Store(At<uint32_t>(t_.tp_recv_counts), totals, 2);
        MOE_SYNC(MTE3_S);
        // With TP a rank has one expert, and both types of count say the same.
        totals.SetValue(0, own_rows_ + peer_rows);
        totals.SetValue(1, 0);
        MOE_SYNC(S_MTE3);
        Store(At<uint32_t>(t_.expert_token_nums), totals, 2);
    }

    // Scales arrive in row order; up to kBatch of them are written by one copy.
    __aicore__ inline void KeepScale(uint32_t row, float scale) {
        if (kept_ == kBatch) FlushScales();
        if (kept_ == 0) first_scale_ = own_rows_ + row;
        scales_.Get<float>().SetValue(kept_++, scale);
    }
    __aicore__ inline void FlushScales() {
        if (kept_ == 0) return;
        // Later rows' queue steps or the lane's post have already ordered the values before this
        // copy.
        Store(At<float>(t_.dynamic_scales + 4ull * first_scale_), scales_.Get<float>(), kept_);
        MOE_SYNC(MTE3_S);
        kept_ = 0;
    }

    TPipe* pipe_;
    Window& window_;
    const Parameters& p_;
    const DispatchTensors& t_;
    uint32_t row_bytes_;
    TpLane lane_;
    uint32_t own_rows_ = 0, kept_ = 0, first_scale_ = 0;
    AscendC::TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> rows_;
    Buffer counts_, totals_, scales_;
};

}  // namespace ascend_moe
