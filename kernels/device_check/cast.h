// Cast on 2201: which pairs of types exist, and with which rounding. Part of kernel_operator.h.
//
// intf/kernel_operator_vec_vconv_intf.h; the pairs and modes are the cases of CastIntrinsicsImpl in
// impl/dav_c220/kernel_operator_vec_vconv_impl.h, the same in v8.5.0 and 9.1.0. A mode that is not
// there is an assertion of debug builds only: without it no instruction is issued at all. Left out:
// the pairs of int4b_t, which the kernels do not use.
#pragma once

namespace AscendC {

enum class RoundMode : uint8_t {  // impl/utils/kernel_utils_mode.h
    CAST_NONE = 0,
    CAST_RINT,
    CAST_FLOOR,
    CAST_CEIL,
    CAST_ROUND,
    CAST_TRUNC,
    CAST_ODD
};

namespace check {

constexpr unsigned Bit(RoundMode mode) { return 1u << static_cast<unsigned>(mode); }
constexpr unsigned kNone = Bit(RoundMode::CAST_NONE);
constexpr unsigned kRounds = Bit(RoundMode::CAST_RINT) | Bit(RoundMode::CAST_FLOOR) |
                             Bit(RoundMode::CAST_CEIL) | Bit(RoundMode::CAST_ROUND) |
                             Bit(RoundMode::CAST_TRUNC);
constexpr unsigned kAll = kNone | kRounds | Bit(RoundMode::CAST_ODD);

template <typename To, typename From>
constexpr unsigned kModes = 0;

#define CHECK_CAST(To, From, modes) \
    template <>                     \
    constexpr unsigned kModes<To, From> = modes

CHECK_CAST(half, float, kAll);
CHECK_CAST(half, int32_t, kAll);  // the scale of SetDeqScale; the mode plays no part
CHECK_CAST(half, int16_t, kNone | kRounds);
CHECK_CAST(half, int8_t, kNone);
CHECK_CAST(half, uint8_t, kNone);
CHECK_CAST(float, half, kNone);
CHECK_CAST(float, bfloat16_t, kNone);
CHECK_CAST(float, int64_t, kRounds);
CHECK_CAST(float, int32_t, kNone | kRounds);
CHECK_CAST(float, int16_t, kNone);
CHECK_CAST(float, float, kRounds);
CHECK_CAST(bfloat16_t, float, kRounds);
CHECK_CAST(int64_t, float, kRounds);
CHECK_CAST(int64_t, int32_t, kNone);
CHECK_CAST(int32_t, float, kRounds);
CHECK_CAST(int32_t, half, kRounds);
CHECK_CAST(int32_t, bfloat16_t, kRounds);
CHECK_CAST(int32_t, int64_t, kNone);
CHECK_CAST(int16_t, float, kRounds);
CHECK_CAST(int16_t, half, kRounds);
CHECK_CAST(int16_t, int32_t, kNone);
CHECK_CAST(int8_t, half, kNone | kRounds);
CHECK_CAST(uint8_t, half, kNone | kRounds);
#undef CHECK_CAST

}  // namespace check

template <typename To, typename From>
__aicore__ void Cast(const LocalTensor<To>&, const LocalTensor<From>&, RoundMode mode, uint32_t)
    __attribute__((diagnose_if((check::kModes<To, From> & check::Bit(mode)) == 0,
                               "this Cast does not exist on 2201 with this rounding", "error")));

__aicore__ void SetDeqScale(half scale);

}  // namespace AscendC
