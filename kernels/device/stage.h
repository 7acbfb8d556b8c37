// Dispatch, first half of the source's work: every active token into the own window, quantised
// once, and its scales.
#pragma once

#include "int8.h"

namespace ascend_moe {

// The GM operands of dispatch, in the order of the kernel's arguments.
struct DispatchTensors {
    uint64_t x, expert_ids, scales, mask, elastic_info;
    uint64_t expand_x, dynamic_scales, assist_info, expert_token_nums, ep_recv_counts,
        tp_recv_counts, performance_info;
    uint64_t workspace;
};

// Where the row of a pair is in the stage.
__aicore__ inline uint64_t StagedAt(const Parameters& p, uint32_t pair) {
    uint32_t token = pair >> kSlotBits, per_token = StageRowsPerToken(p);
    uint32_t row = per_token == 1 ? token : token * per_token + (pair & ((1 << kSlotBits) - 1));
    return row * StagePitch(p);
}

// Where a source keeps the scales of its staged rows.
struct ScaleTable {
    uint64_t address;  // 0: packed rows, whose scales are sent out of the caller's own
    uint32_t words;    // of a token
};

// The tokens that a core stages: in groups whose scales end on a block boundary. The first
// `without_list` cores, which make no list for a destination, stage so many more as that takes.
__aicore__ inline Share StagedShare(uint32_t active, const ScaleTable& table, uint32_t core,
                                    uint32_t cores, uint32_t without_list) {
    constexpr uint32_t kTokensOfList = 2;
    const uint32_t group = RowGroup(4 * table.words, 1), groups = CeilDiv(active, group),
                   ahead = without_list * kTokensOfList;
    Share share{groups, groups};
    if (groups > ahead) {
        share = ShareOf(groups - ahead, core, cores);
        const bool first = core < without_list;
        share.begin += first ? core * kTokensOfList : ahead;
        share.end += first ? (core + 1) * kTokensOfList : ahead;
    } else if (core < without_list) {
        share = ShareOf(groups, core, without_list);
    }
    share.begin = share.begin * group < active ? share.begin * group : active;
    share.end = share.end * group < active ? share.end * group : active;
    return share;
}

class Stager {
 public:
    __aicore__ inline Stager(TPipe* pipe, const Window& window, const Parameters& p,
                             const DispatchTensors& t, uint64_t stage_offset,
                             const ScaleTable& table, Share tokens)
        : pipe_(pipe),
          p_(p),
          t_(t),
          stage_(window.Data(window.rank, stage_offset)),
          table_(table),
          share_(tokens) {}

    __aicore__ inline void Run() {
        if (!p_.quant) {
            if (Packed(p_) && table_.address != 0) CopyScales();
            CopyRows();
        } else if (p_.element == Element::kBfloat16) {
            QuantizeRows<bfloat16_t>();
        } else {
            QuantizeRows<half>();
        }
    }

 private:
    static constexpr uint32_t kBatch = 16;  // tokens whose scales are stored together

    __aicore__ inline void CopyRows() {
        uint32_t row_bytes = RowBytes(p_);
        AscendC::TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> rows;
        pipe_->InitBuffer(rows, 4, row_bytes);
        for (uint32_t token = share_.begin; token < share_.end; ++token) {
            LocalTensor<uint8_t> row = rows.AllocTensor<uint8_t>();
            Load(row, At<uint8_t>(t_.x + static_cast<uint64_t>(token) * row_bytes), row_bytes);
            rows.EnQue(row);
            row = rows.DeQue<uint8_t>();
            Store(At<uint8_t>(stage_ + token * StagePitch(p_)), row, row_bytes);
            rows.FreeTensor(row);
        }
    }

    // Those that the caller gave, one for each token: words of 4 bytes, which lie in blocks of
    // their own in UB, and where there is room in the table.
    __aicore__ inline void CopyScales() {
        Buffer buffer;
        pipe_->InitBuffer(buffer, kBlockBytes * kBatch);
        LocalTensor<float> scales = buffer.Get<float>();
        for (uint32_t first = share_.begin; first < share_.end; first += kBatch) {
            const uint32_t left = share_.end - first, between = 4 * (table_.words - 1);
            const uint16_t count = static_cast<uint16_t>(left < kBatch ? left : kBatch);
            AscendC::DataCopyPad(scales, At<float>(t_.scales + 4ull * first),
                                 AscendC::DataCopyExtParams{count, 4, 0, 0, 0},
                                 AscendC::DataCopyPadExtParams<float>{});
            MOE_SYNC(MTE2_MTE3);
            AscendC::DataCopyPad(At<float>(table_.address + 4ull * first * table_.words), scales,
                                 AscendC::DataCopyExtParams{count, 4, 0, between, 0});
            MOE_SYNC(MTE3_MTE2);
        }
    }

    template <typename X>
    __aicore__ inline void QuantizeRows() {
        uint32_t per_token = StageRowsPerToken(p_), scale_words = table_.words;
        AscendC::TQue<TPosition::VECIN, 2> inputs;  // the next token is on its way
        AscendC::TQue<TPosition::VECIN, 1> smooth_rows;
        AscendC::TQue<TPosition::VECOUT, 1> outputs;
        Buffer wide_buffer, product_buffer, scale_buffer, id_buffer, mask_buffer;
        RowQuantizer quantizer;
        pipe_->InitBuffer(inputs, 2, 2 * p_.hidden);
        pipe_->InitBuffer(outputs, 2, p_.hidden);
        pipe_->InitBuffer(wide_buffer, 4 * p_.hidden);
        pipe_->InitBuffer(scale_buffer, 4 * scale_words * kBatch);
        quantizer.InitBuffers(pipe_, p_.hidden);
        if (p_.smooth) {
            pipe_->InitBuffer(smooth_rows, 1, 4 * p_.hidden);
            pipe_->InitBuffer(product_buffer, 4 * p_.hidden);
            pipe_->InitBuffer(id_buffer, 4 * p_.topk);
            pipe_->InitBuffer(mask_buffer, p_.topk);
        }
        LocalTensor<float> wide = wide_buffer.Get<float>(), scales = scale_buffer.Get<float>();
        if (share_.begin < share_.end) LoadToken<X>(inputs, share_.begin);
        for (uint32_t token = share_.begin; token < share_.end; ++token) {
            if (token + 1 < share_.end) LoadToken<X>(inputs, token + 1);
            if (p_.smooth) LoadRoute(token, id_buffer, mask_buffer);
            LocalTensor<X> input = inputs.DeQue<X>();
            AscendC::Cast(wide, input, RoundMode::CAST_NONE, p_.hidden);
            inputs.FreeTensor(input);
            MOE_VBARRIER();
            const uint32_t in_batch = (token - share_.begin) % kBatch,
                           first_scale = in_batch * scale_words;
            for (uint32_t i = 0; i < scale_words; ++i) scales.SetValue(first_scale + i, 0.0f);
            for (uint32_t slot = 0; slot < per_token; ++slot) {
                LocalTensor<float> values = wide;
                if (p_.smooth) {
                    int32_t scale_row = ScaleRow(slot, id_buffer, mask_buffer);
                    if (scale_row < 0) continue;
                    // One buffer: the quantiser's V_S wait already keeps the next load behind its
                    // use.
                    LocalTensor<float> smooth = smooth_rows.AllocTensor<float>();
                    Load(smooth, At<float>(t_.scales + 4ull * scale_row * p_.hidden), p_.hidden);
                    smooth_rows.EnQue(smooth);
                    smooth = smooth_rows.DeQue<float>();
                    values = product_buffer.Get<float>();
                    AscendC::Mul(values, wide, smooth, p_.hidden);
                    smooth_rows.FreeTensor(smooth);
                    MOE_VBARRIER();
                }
                LocalTensor<int8_t> out = outputs.AllocTensor<int8_t>();
                scales.SetValue(first_scale + slot, quantizer.Quantize(out, values));
                outputs.EnQue(out);
                out = outputs.DeQue<int8_t>();
                Store(At<int8_t>(stage_ + (static_cast<uint64_t>(token) * per_token + slot) *
                                              StagePitch(p_)),
                      out, p_.hidden);
                outputs.FreeTensor(out);
            }
            if (in_batch + 1 < kBatch && token + 1 < share_.end) continue;
            MOE_SYNC(S_MTE3);
            Store(At<float>(table_.address + 4ull * (token - in_batch) * scale_words), scales,
                  (in_batch + 1) * scale_words);
            MOE_SYNC(MTE3_S);
        }
    }

    template <typename X>
    __aicore__ inline void LoadToken(AscendC::TQue<TPosition::VECIN, 2>& inputs, uint32_t token) {
        LocalTensor<X> input = inputs.AllocTensor<X>();
        Load(input, At<X>(t_.x + 2ull * token * p_.hidden), p_.hidden);
        inputs.EnQue(input);
    }

    __aicore__ inline void LoadRoute(uint32_t token, Buffer& id_buffer, Buffer& mask_buffer) {
        MOE_SYNC(S_MTE2);
        Load(id_buffer.Get<int32_t>(), At<int32_t>(t_.expert_ids + 4ull * token * p_.topk),
             p_.topk);
        if (p_.mask == Mask::kPairs)
            Load(mask_buffer.Get<uint8_t>(),
                 At<uint8_t>(t_.mask + static_cast<uint64_t>(token) * p_.topk), p_.topk);
        MOE_SYNC(MTE2_S);
    }

    // The row of `scales` for a slot of the token whose route is loaded; -1 if the pair is not
    // sent.
    __aicore__ inline int32_t ScaleRow(uint32_t slot, Buffer& id_buffer,
                                       Buffer& mask_buffer) const {
        LocalTensor<uint8_t> mask = mask_buffer.Get<uint8_t>();
        bool pairs = p_.mask == Mask::kPairs;
        if (slot >= p_.topk) {
            bool any = !pairs;
            for (uint32_t k = 0; k < p_.topk && !any; ++k) any = mask.GetValue(k) != 0;
            return any ? static_cast<int32_t>(slot - p_.topk) : -1;
        }
        int32_t expert = id_buffer.Get<int32_t>().GetValue(slot);
        bool sent = expert >= 0 && expert < static_cast<int32_t>(p_.moe_experts) &&
                    (!pairs || mask.GetValue(slot) != 0);
        return sent ? expert + static_cast<int32_t>(p_.shared_experts) : -1;
    }

    TPipe* pipe_;
    const Parameters& p_;
    const DispatchTensors& t_;
    uint64_t stage_;
    ScaleTable table_;
    Share share_;
};

}  // namespace ascend_moe
