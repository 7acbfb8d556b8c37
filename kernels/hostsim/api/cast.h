// Cast: which pairs of types exist on this architecture, with which rounding modes.
#pragma once

#include <algorithm>

#include "vector.h"

namespace AscendC {

// The factor of the int32 to half Cast, a register that a kernel finds as the last one left it.
inline void SetDeqScale(half scale) {
    hostsim::g_core->deq_scale = static_cast<float>(scale);
    hostsim::g_core->deq_scale_set = true;
}

namespace detail {

template <typename To>
To Saturate(double value) {
    if (std::isnan(value)) return 0;
    return static_cast<To>(
        std::clamp<double>(value, std::numeric_limits<To>::min(), std::numeric_limits<To>::max()));
}

template <typename To, typename From>
struct Caster;  // pairs without a specialisation do not exist on this architecture or are not in
                // the subset

#define HOSTSIM_CAST(To, From, modes, expression)                                    \
    template <>                                                                      \
    struct Caster<To, From> {                                                        \
        static bool Allows([[maybe_unused]] RoundMode mode) { return (modes); }      \
        static To Do(From v, [[maybe_unused]] RoundMode mode) { return expression; } \
    }
constexpr bool Rounds(RoundMode mode) { return mode != RoundMode::CAST_NONE; }
inline half MakeHalf(float v, RoundMode mode) {
    half h;
    h.bits = hostsim::FloatToHalf(v, mode);
    return h;
}
inline bfloat16_t MakeBfloat(float v, RoundMode mode) {
    bfloat16_t b;
    b.bits = hostsim::FloatToBfloat(v, mode);
    return b;
}
inline double Integral(float v, RoundMode mode) {
    return std::isfinite(v) ? RoundIntegral(v, mode) : static_cast<double>(v);
}

HOSTSIM_CAST(float, half, mode == RoundMode::CAST_NONE, static_cast<float>(v));
HOSTSIM_CAST(float, bfloat16_t, mode == RoundMode::CAST_NONE, static_cast<float>(v));
HOSTSIM_CAST(float, int32_t, true, static_cast<float>(v));
HOSTSIM_CAST(half, float, true,
             MakeHalf(v, mode == RoundMode::CAST_NONE ? RoundMode::CAST_RINT : mode));
HOSTSIM_CAST(bfloat16_t, float, Rounds(mode), MakeBfloat(v, mode));
HOSTSIM_CAST(int32_t, float, Rounds(mode), Saturate<int32_t>(Integral(v, mode)));
HOSTSIM_CAST(half, int32_t, true,
             MakeHalf(static_cast<float>(v) * hostsim::g_core->deq_scale, RoundMode::CAST_RINT));
HOSTSIM_CAST(half, int8_t, mode == RoundMode::CAST_NONE, half(static_cast<float>(v)));
HOSTSIM_CAST(half, uint8_t, mode == RoundMode::CAST_NONE, half(static_cast<float>(v)));
HOSTSIM_CAST(int8_t, half, true, Saturate<int8_t>(Integral(static_cast<float>(v), mode)));
#undef HOSTSIM_CAST

}  // namespace detail

template <typename To, typename From>
void Cast(const LocalTensor<To>& dst, const LocalTensor<From>& src, RoundMode mode, uint32_t count,
          hostsim::Loc loc = hostsim::Loc::Here()) {
    detail::VectorInstruction in(loc, HOSTSIM_CONVERT);
    hostsim::g_core->Align((detail::Caster<To, From>::Allows(mode)),
                           "this rounding mode does not exist for this Cast");
    if constexpr (std::is_same_v<To, half> && std::is_same_v<From, int32_t>) {
        if (!hostsim::g_core->deq_scale_set)
            hostsim::g_core->Report("uninit", "Cast of int32_t to half before SetDeqScale");
    }
    if (!in.Reads(src, count) || !in.Writes(dst, count)) return;
    for (uint32_t i = 0; i < count; ++i)
        dst.Host()[i] = detail::Caster<To, From>::Do(src.Host()[i], mode);
}

}  // namespace AscendC
