// The two int8 formats, as the stock A3 kernels compute them (docs/kernels.md section 6).
#pragma once

#include "window.h"

namespace ascend_moe {

using AscendC::RoundMode;

// Per row: q = half-even(f * (127 / max|f|)); the stored scale is 1 / (127 / max|f|), two
// divisions. A row of zeros gives 0 and scale 0.
class RowQuantizer {
 public:
    __aicore__ inline void InitBuffers(TPipe* pipe, uint32_t hidden) {
        hidden_ = hidden;
        pipe->InitBuffer(work_, 4 * hidden);
        pipe->InitBuffer(max_, kBlockBytes);
        // ReduceMax keeps value and index of every 64 floats, also when no index is asked for.
        pipe->InitBuffer(partial_, 4 * AlignUp(2 * CeilDiv(hidden, 64), kBlockWords));
        AscendC::SetDeqScale(static_cast<half>(1.0f));
    }

    // `values` is destroyed. The caller has ordered what wrote it before the vector unit.
    __aicore__ inline float Quantize(const LocalTensor<int8_t>& out,
                                     const LocalTensor<float>& values) {
        LocalTensor<float> work = work_.Get<float>(), max = max_.Get<float>();
        AscendC::Abs(work, values, hidden_);
        MOE_VBARRIER();
        AscendC::ReduceMax(max, work, partial_.Get<float>(), hidden_);
        MOE_SYNC(V_S);
        float factor = 127.0f / max.GetValue(0);
        MOE_SYNC(S_V);
        AscendC::Muls(values, values, factor, hidden_);
        MOE_VBARRIER();
        LocalTensor<int32_t> integers = values.ReinterpretCast<int32_t>();
        AscendC::Cast(integers, values, RoundMode::CAST_RINT, hidden_);
        MOE_VBARRIER();
        LocalTensor<half> halves = work_.Get<half>();
        AscendC::Cast(halves, integers, RoundMode::CAST_NONE, hidden_);
        MOE_VBARRIER();
        AscendC::Cast(out, halves, RoundMode::CAST_TRUNC, hidden_);
        return 1.0f / factor;
    }

 private:
    uint32_t hidden_;
    Buffer work_, max_, partial_;
};

// Per 8 values: the scale is max|f| * (1/127); q = half-even(f / scale) by way of half. Stored: H
// values, then the scales rounded to the element type, at CommScaleOffset. A block of zeros divides
// 0 by 0; NaN becomes 0.
template <typename X>
class GroupQuantizer {
 public:
    __aicore__ inline void InitBuffers(TPipe* pipe, const Parameters& p) {
        hidden_ = p.hidden;
        padded_ = AlignUp(p.hidden, 64);
        scale_words_ = CommScaleOffset(p) / 2;
        pipe->InitBuffer(scale_, 4 * AlignUp(padded_ / 8, kBlockWords));
        pipe->InitBuffer(half_, 2 * padded_);
    }

    // Bytes of UB for one stored row.
    __aicore__ inline static uint32_t StoredBytes(const Parameters& p) {
        return CommScaleOffset(p) + AlignUp(AlignUp(p.hidden, 64) / 4, kBlockBytes);
    }

    // `wide` and `work` are scratch of WideBytes each.
    __aicore__ inline static uint32_t WideBytes(const Parameters& p) {
        return 4 * AlignUp(p.hidden, 64);
    }

    __aicore__ inline void Quantize(const LocalTensor<int8_t>& out, const LocalTensor<X>& row,
                                    const LocalTensor<float>& wide,
                                    const LocalTensor<float>& work) {
        LocalTensor<float> scale = scale_.Get<float>();
        LocalTensor<half> halves = half_.Get<half>();
        if (padded_ != hidden_) {
            AscendC::Duplicate(wide, 0.0f, padded_);
            MOE_VBARRIER();
        }
        AscendC::Cast(wide, row, RoundMode::CAST_NONE, hidden_);
        MOE_VBARRIER();
        AscendC::Abs(work, wide, padded_);
        MOE_VBARRIER();
        MaxOfBlocks(scale, work, padded_ / 64);
        MOE_VBARRIER();
        AscendC::Muls(scale, scale, 1.0f / 127.0f, padded_ / 8);
        MOE_VBARRIER();
        AscendC::Cast(out.ReinterpretCast<X>()[scale_words_], scale, RoundMode::CAST_RINT,
                      padded_ / 8);
        AscendC::Brcb(work, scale, padded_ / 64, AscendC::BrcbRepeatParams{1, 8});
        MOE_VBARRIER();
        AscendC::Div(wide, wide, work, hidden_);
        MOE_VBARRIER();
        AscendC::Cast(halves, wide, RoundMode::CAST_RINT, hidden_);
        MOE_VBARRIER();
        AscendC::Cast(out, halves, RoundMode::CAST_RINT, hidden_);
    }

    // fp32(X(q * scale)) into `values`.
    __aicore__ inline void Dequantize(const LocalTensor<float>& values,
                                      const LocalTensor<int8_t>& stored,
                                      const LocalTensor<float>& work) {
        LocalTensor<float> scale = scale_.Get<float>();
        LocalTensor<half> halves = half_.Get<half>();
        uint32_t scales = CeilDiv(hidden_, 8);
        AscendC::Duplicate(scale, 0.0f, padded_ / 8);
        AscendC::Cast(halves, stored, RoundMode::CAST_NONE, hidden_);
        MOE_VBARRIER();
        AscendC::Cast(scale, stored.ReinterpretCast<X>()[scale_words_], RoundMode::CAST_NONE,
                      scales);
        AscendC::Cast(values, halves, RoundMode::CAST_NONE, hidden_);
        MOE_VBARRIER();
        AscendC::Brcb(work, scale, padded_ / 64, AscendC::BrcbRepeatParams{1, 8});
        MOE_VBARRIER();
        AscendC::Mul(values, values, work, hidden_);
        MOE_VBARRIER();
        LocalTensor<X> rounded = half_.Get<X>();
        AscendC::Cast(rounded, values, RoundMode::CAST_RINT, hidden_);
        MOE_VBARRIER();
        AscendC::Cast(values, rounded, RoundMode::CAST_NONE, hidden_);
        MOE_VBARRIER();
    }

 private:
    uint32_t hidden_, padded_, scale_words_;
    Buffer scale_, half_;
};

}  // namespace ascend_moe
