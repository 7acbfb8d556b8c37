// How a server's sum crosses to another one with comm_quant_mode 2: int8, and a scale of the
// element type for each block. docs/kernels-hierarchy.md, section 7.
#pragma once

#include "../int8.h"
#include "abi.h"

namespace ascend_moe {

// What the two element types differ in: bfloat16 computes in fp32, in blocks of 8, fp16 in fp16, in
// blocks of 16. A block is 32 bytes of either.
template <typename X>
struct SumFormat;
template <>
struct SumFormat<bfloat16_t> {
    using Real = float;
};
template <>
struct SumFormat<half> {
    using Real = half;
};

template <typename X>
class SumQuantizer {
 public:
    using Real = typename SumFormat<X>::Real;
    static constexpr bool kIsHalf = sizeof(Real) == 2;
    static constexpr uint32_t kReal = sizeof(Real), kPerBlock = kBlockBytes / kReal,
                              kPerRepeat = 8 * kPerBlock;
    // Rows are computed in whole repeats, and so many of them that the scales end on a block.
    static constexpr uint32_t kPadding = 2 * kPerRepeat;

    __aicore__ inline void InitBuffers(TPipe* pipe, const Parameters& p) {
        hidden_ = p.hidden;
        padded_ = AlignUp(p.hidden, kPadding);
        scales_at_ = CommScaleOffset(p) / 2;
        pipe->InitBuffer(scale_, kReal * padded_ / kPerBlock);
        pipe->InitBuffer(work_, kReal * padded_);
    }
    // UB for one stored row.
    __aicore__ inline static uint32_t StoredBytes(const Parameters& p) {
        return CommScaleOffset(p) + 2 * AlignUp(p.hidden, kPadding) / kPerBlock;
    }

    // `values` are destroyed; behind the row they are 0 up to a multiple of kPadding. `halves` is
    // scratch of two bytes a value.
    __aicore__ inline void Quantize(const LocalTensor<int8_t>& out, const LocalTensor<Real>& values,
                                    const LocalTensor<half>& halves) {
        LocalTensor<Real> scale = scale_.template Get<Real>(), work = work_.template Get<Real>();
        AscendC::Abs(work, values, padded_);
        MOE_VBARRIER();
        MaxOfBlocks(scale, work, padded_ / kPerRepeat);
        MOE_VBARRIER();
        AscendC::Muls(scale, scale, static_cast<Real>(1.0f / 127.0f), padded_ / kPerBlock);
        MOE_VBARRIER();
        Spread(work, scale);
        if constexpr (kIsHalf) {
            AscendC::Adds(out.template ReinterpretCast<half>()[scales_at_], scale,
                          static_cast<half>(0.0f), padded_ / kPerBlock);
        } else {
            AscendC::Cast(out.template ReinterpretCast<X>()[scales_at_], scale,
                          RoundMode::CAST_RINT, padded_ / kPerBlock);
        }
        MOE_VBARRIER();
        AscendC::Div(values, values, work, hidden_);
        MOE_VBARRIER();
        if constexpr (kIsHalf) {
            AscendC::Cast(out, values, RoundMode::CAST_RINT, hidden_);
        } else {
            AscendC::Cast(halves, values, RoundMode::CAST_RINT, hidden_);
            MOE_VBARRIER();
            AscendC::Cast(out, halves, RoundMode::CAST_RINT, hidden_);
        }
    }

    // total += stored, one rounding. `halves` as above; `wide` is scratch of the width of
    // Real, the same as `halves` in fp16.
    __aicore__ inline void AddTo(const LocalTensor<Real>& total, const LocalTensor<int8_t>& stored,
                                 const LocalTensor<half>& halves, const LocalTensor<Real>& wide) {
        LocalTensor<Real> scale = scale_.template Get<Real>(), work = work_.template Get<Real>();
        const LocalTensor<X> scales = stored.template ReinterpretCast<X>()[scales_at_];
        AscendC::Duplicate(scale, static_cast<Real>(0.0f), padded_ / kPerBlock);
        AscendC::Cast(halves, stored, RoundMode::CAST_NONE, hidden_);
        MOE_VBARRIER();
        if constexpr (kIsHalf) {
            AscendC::Adds(scale, scales, static_cast<half>(0.0f), hidden_ / kPerBlock);
        } else {
            AscendC::Cast(scale, scales, RoundMode::CAST_NONE, hidden_ / kPerBlock);
            AscendC::Cast(wide, halves, RoundMode::CAST_NONE, hidden_);
        }
        MOE_VBARRIER();
        Spread(work, scale);
        MOE_VBARRIER();
        AscendC::MulAddDst(total, wide, work, hidden_);
        MOE_VBARRIER();
    }

 private:
    __aicore__ inline void Spread(const LocalTensor<Real>& to, const LocalTensor<Real>& scale) {
        AscendC::Brcb(to, scale, padded_ / kPerRepeat, AscendC::BrcbRepeatParams{1, 8});
    }

    uint32_t hidden_, padded_, scales_at_;
    Buffer scale_, work_;
};

}  // namespace ascend_moe
