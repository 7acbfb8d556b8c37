// Qualifiers, element types, enumerations and parameter structs of AscendC.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#define __global__
#define __aicore__
#define __gm__
#define __ubuf__

using GM_ADDR = uint8_t*;

namespace AscendC {

enum class RoundMode {
    CAST_NONE = 0,
    CAST_RINT,  // half to even
    CAST_FLOOR,
    CAST_CEIL,
    CAST_ROUND,  // half away from zero
    CAST_TRUNC,
};

// Rounds a finite value to an integral one.
inline double RoundIntegral(double value, RoundMode mode) {
    switch (mode) {
        case RoundMode::CAST_FLOOR:
            return std::floor(value);
        case RoundMode::CAST_CEIL:
            return std::ceil(value);
        case RoundMode::CAST_ROUND:
            return std::round(value);
        case RoundMode::CAST_TRUNC:
            return std::trunc(value);
        default:
            return std::nearbyint(value);
    }
}

}  // namespace AscendC

// Storage-only 16-bit floats: explicit conversion, no arithmetic, like on the device's scalar unit.
// Overflow gives infinity: A2 and A3 run in INF/NAN mode.
namespace hostsim {

// Rounds to a float format with `mantissa` stored bits and exponents down to `min_exponent`;
// denormals are kept.
inline float RoundToFormat(float value, int mantissa, int min_exponent, AscendC::RoundMode mode) {
    if (value == 0.0f || !std::isfinite(value)) return value;
    int exponent = std::max(std::ilogb(value), min_exponent) - mantissa;
    return static_cast<float>(std::ldexp(
        AscendC::RoundIntegral(std::ldexp(static_cast<double>(value), -exponent), mode), exponent));
}

inline float HalfToFloat(uint16_t bits) {
    uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    uint32_t exponent = (bits >> 10) & 31u, mantissa = bits & 0x3ffu;
    uint32_t out;
    if (exponent == 31) {
        out = sign | 0x7f800000u | (mantissa << 13);
    } else if (exponent != 0) {
        out = sign | ((exponent + 112) << 23) | (mantissa << 13);
    } else {
        float value = std::ldexp(static_cast<float>(mantissa), -24);
        std::memcpy(&out, &value, 4);
        out |= sign;
    }
    float result;
    std::memcpy(&result, &out, 4);
    return result;
}

inline uint16_t FloatToHalf(float value, AscendC::RoundMode mode) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
    if (std::isnan(value)) return sign | 0x7e00u;
    float magnitude = std::fabs(RoundToFormat(value, 10, -14, mode));
    if (magnitude >= 65536.0f) return sign | 0x7c00u;
    if (magnitude < 6.103515625e-05f)
        return sign | static_cast<uint16_t>(std::ldexp(magnitude, 24));
    std::memcpy(&bits, &magnitude, 4);
    return sign | static_cast<uint16_t>((bits >> 13) - (112u << 10));
}

inline float BfloatToFloat(uint16_t bits) {
    uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float result;
    std::memcpy(&result, &wide, 4);
    return result;
}

inline uint16_t FloatToBfloat(float value, AscendC::RoundMode mode) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40u);
    if (mode == AscendC::RoundMode::CAST_RINT) {
        return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    }
    float rounded = RoundToFormat(value, 7, -126, mode);
    std::memcpy(&bits, &rounded, 4);
    return static_cast<uint16_t>(bits >> 16);
}

}  // namespace hostsim

namespace hostsim {

struct Half {
    uint16_t bits;
    Half() = default;
    explicit Half(float value) : bits(FloatToHalf(value, AscendC::RoundMode::CAST_RINT)) {}
    explicit operator float() const { return HalfToFloat(bits); }
};

}  // namespace hostsim

// On the device this is a keyword or a macro (8.5 passes -Dhalf=__fp16), as are the others, so none
// of them can be the name of anything.
#define half ::hostsim::Half
#define block_idx ::hostsim::kNotAName
#define block_num ::hostsim::kNotAName
#define l2_vaddr_base ::hostsim::kNotAName
#define l2_in_main ::hostsim::kNotAName

struct bfloat16_t {
    uint16_t bits;
    bfloat16_t() = default;
    explicit operator float() const { return hostsim::BfloatToFloat(bits); }
};

namespace AscendC {

enum class TPosition { GM, VECIN, VECOUT, VECCALC };
enum class CMPMODE { LT, GT, EQ, LE, GE, NE };
enum class CacheLine { SINGLE_CACHE_LINE, ENTIRE_DATA_CACHE };
enum class DcciDst { CACHELINE_OUT };

// Whole 32-byte blocks (DataCopy).
struct DataCopyParams {
    uint16_t blockCount = 1;
    uint16_t blockLen = 0;   // 32-byte units
    uint16_t srcStride = 0;  // gap, 32-byte units
    uint16_t dstStride = 0;
};

// Any bytes (DataCopyPad): blockLen and the GM gap in bytes, the UB gap in 32-byte units.
struct DataCopyExtParams {
    uint16_t blockCount = 1;
    uint32_t blockLen = 0;
    uint32_t srcStride = 0;
    uint32_t dstStride = 0;
    uint32_t rsv = 0;
};

template <typename T>
struct DataCopyPadExtParams {
    bool isPad = false;
    uint8_t leftPadding = 0;
    uint8_t rightPadding = 0;
    T paddingValue{};
};

struct BrcbRepeatParams {
    uint16_t dstBlkStride = 1;
    uint16_t dstRepStride = 8;
};

struct GatherMaskParams {
    uint8_t src0BlockStride = 1;
    uint16_t repeatTimes = 1;
    uint16_t src0RepeatStride = 0;
    uint8_t src1RepeatStride = 0;
};

}  // namespace AscendC

// Pipes and events. On the device these are built-in enumerations outside the AscendC namespace.
enum pipe_t { PIPE_S = 0, PIPE_V, PIPE_MTE2, PIPE_MTE3, PIPE_ALL };

namespace AscendC {

enum class HardEvent {
    S_V,
    S_MTE2,
    S_MTE3,
    V_S,
    V_MTE2,
    V_MTE3,
    MTE2_S,
    MTE2_V,
    MTE2_MTE3,
    MTE3_S,
    MTE3_V,
    MTE3_MTE2,
    MAX
};

}  // namespace AscendC

using event_t = int32_t;
using TEventID = int8_t;
