// The arithmetic that must equal the oracle in every bit: no fused multiply-add, no reordering.
// Built with -ffp-contract=off; the vector width changes nothing because no sum crosses lanes.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __x86_64__
#include <cpuid.h>
#endif

namespace moe {

// A function whose body is compiled for several vector widths, of which the first call finds the
// best. Not by ifunc, whose resolver needs a part of the compiler's runtime that not all have.
#ifdef __x86_64__
inline int vector_bits() {
    static const int found = [] {
        unsigned a, b, c, d, low, high;
        if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 128;
        __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));  // registers that the system saves
        if ((low & 6) != 6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b >> 5 & 1)) return 128;
        const unsigned f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
        return (low & 0xe0) == 0xe0 && (b & f_dq_bw_vl) == f_dq_bw_vl ? 512 : 256;
    }();
    return found;
}
#define FOR_EACH_VECTOR_WIDTH(result, name, parameters, arguments, ...)                           \
    __attribute__((                                                                               \
        target("avx2,avx512f,avx512dq,avx512bw,avx512vl"))) inline result name##_512 parameters { \
        return __VA_ARGS__ arguments;                                                             \
    }                                                                                             \
    __attribute__((target("avx2"))) inline result name##_256 parameters {                         \
        return __VA_ARGS__ arguments;                                                             \
    }                                                                                             \
    inline result name parameters {                                                               \
        const int bits = vector_bits();                                                           \
        return bits == 512   ? name##_512 arguments                                               \
               : bits == 256 ? name##_256 arguments                                               \
                             : __VA_ARGS__ arguments;                                             \
    }
#else
#define FOR_EACH_VECTOR_WIDTH(result, name, parameters, arguments, ...) \
    inline result name parameters { return __VA_ARGS__ arguments; }
#endif

enum class Element : int64_t { kBf16, kFp16, kWord };

inline float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

inline uint32_t as_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

struct Bf16 {
    static inline float to_float(uint32_t value) { return as_float(value << 16); }
    static inline uint16_t from_float(float value) {
        const uint32_t bits = as_bits(value);
        const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
    }
};

// In plain integer and fp32 steps that every compiler turns into vectors.
struct Fp16 {
    static inline float to_float(uint32_t value) {
        const uint32_t sign = (value & 0x8000) << 16;
        const uint32_t shifted = (value & 0x7fff) << 13;
        // 2^112 moves the exponent's bias; it is exact, subnormals included.
        const float finite = as_float(shifted) * as_float(0x77800000);
        const uint32_t magnitude = shifted >= 0x0f800000 ? (shifted | 0x7f800000) : as_bits(finite);
        return as_float(sign | magnitude);
    }
    static inline uint16_t from_float(float value) {
        const uint32_t bits = as_bits(value), sign = bits >> 16 & 0x8000;
        const uint32_t magnitude = bits & 0x7fffffff;
        const uint32_t normal = (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
        // Added to 0.5, an fp32 number below 2^-14 is rounded at fp16's last subnormal bit.
        const uint32_t subnormal = as_bits(as_float(magnitude) + 0.5f) - 0x3f000000;
        uint32_t half = magnitude < 0x38800000 ? subnormal : normal;
        half = magnitude >= 0x477ff000 ? 0x7c00 : half;
        half = magnitude > 0x7f800000 ? 0x7e00 : half;
        return static_cast<uint16_t>(sign | half);
    }
};

// One addend of a token: a row, or with `wide` a row of fp32.
struct Addend {
    const void* row;
    float weight;
    bool wide;
};

// Two neighbours of a row in one word. Vectors of words come apart into the even and the odd
// elements by a shift and a mask, and go back together the same way: no lane is ever moved.
typedef uint32_t __attribute__((may_alias)) Pair;

constexpr int64_t kPairs = 2048;  // summed at a time: 16 KiB of sums stay in the first cache

struct Sums {
    float even[kPairs], odd[kPairs];
};

template <typename Format, int kRows>
static inline __attribute__((always_inline)) void add_rows(Sums& sums, const Addend* addends,
                                                           int64_t begin, int64_t width) {
    const Pair* row[kRows];
    float weight[kRows];
    for (int k = 0; k < kRows; ++k) {
        row[k] = static_cast<const Pair*>(addends[k].row) + begin;
        weight[k] = addends[k].weight;
    }
    for (int64_t i = 0; i < width; ++i) {
        float even = sums.even[i], odd = sums.odd[i];
#pragma GCC unroll 8
        for (int k = 0; k < kRows; ++k) {
            const uint32_t pair = row[k][i];
            even += Format::to_float(pair & 0xffff) * weight[k];
            odd += Format::to_float(pair >> 16) * weight[k];
        }
        sums.even[i] = even;
        sums.odd[i] = odd;
    }
}

static inline void add_wide(Sums& sums, const Addend& addend, int64_t begin, int64_t width) {
    const float* row = static_cast<const float*>(addend.row) + 2 * begin;
    for (int64_t i = 0; i < width; ++i) {
        sums.even[i] += row[2 * i] * addend.weight;
        sums.odd[i] += row[2 * i + 1] * addend.weight;
    }
}

// How many of the addends from here on are rows of the narrow kind, up to `most`.
static inline int64_t narrow(const Addend* addends, int64_t count, int64_t most) {
    int64_t found = 0;
    while (found < count && found < most && !addends[found].wide) ++found;
    return found;
}

template <typename Format>
static inline __attribute__((always_inline)) void add_up(uint16_t* out, const Addend* addends,
                                                         int64_t count, int64_t hidden) {
    Sums sums;
    const int64_t pairs = hidden / 2;
    for (int64_t begin = 0; begin < pairs; begin += kPairs) {
        const int64_t width = pairs - begin < kPairs ? pairs - begin : kPairs;
        for (int64_t i = 0; i < width; ++i) sums.even[i] = sums.odd[i] = 0.0f;
        for (int64_t at = 0; at < count;) {
            const int64_t here = narrow(addends + at, count - at, 8);
            if (here == 8) {
                add_rows<Format, 8>(sums, addends + at, begin, width);
                at += 8;
            } else if (here >= 4) {
                add_rows<Format, 4>(sums, addends + at, begin, width);
                at += 4;
            } else if (here) {
                add_rows<Format, 1>(sums, addends + at, begin, width);
                at += 1;
            } else {
                add_wide(sums, addends[at], begin, width);
                at += 1;
            }
        }
        Pair* to = reinterpret_cast<Pair*>(out) + begin;
        for (int64_t i = 0; i < width; ++i) {
            to[i] = Format::from_float(sums.even[i]) |
                    static_cast<uint32_t>(Format::from_float(sums.odd[i])) << 16;
        }
    }
    if (hidden % 2) {
        float sum = 0.0f;
        for (int64_t at = 0; at < count; ++at) {
            const void* row = addends[at].row;
            sum += addends[at].weight *
                   (addends[at].wide
                        ? static_cast<const float*>(row)[hidden - 1]
                        : Format::to_float(static_cast<const uint16_t*>(row)[hidden - 1]));
        }
        out[hidden - 1] = Format::from_float(sum);
    }
}

FOR_EACH_VECTOR_WIDTH(void, add_up_bf16,
                      (uint16_t* out, const Addend* addends, int64_t count, int64_t hidden),
                      (out, addends, count, hidden), add_up<Bf16>)
FOR_EACH_VECTOR_WIDTH(void, add_up_fp16,
                      (uint16_t* out, const Addend* addends, int64_t count, int64_t hidden),
                      (out, addends, count, hidden), add_up<Fp16>)

// `quant_mode` 2: factor 127 / max, half to even, stored scale 1 / factor: two divisions. `scratch`
// is for smoothed rows. As integers, magnitudes compare like floats, and NaN is largest.
template <typename Format, bool kSmooth>
static inline __attribute__((always_inline)) float quantise(int8_t* out, const uint16_t* row,
                                                            const float* smooth, float* scratch,
                                                            int64_t hidden) {
    float largest;
    if (kSmooth) {
        uint32_t most = 0;
        for (int64_t i = 0; i < hidden; ++i) {
            scratch[i] = Format::to_float(row[i]) * smooth[i];
            const uint32_t magnitude = as_bits(scratch[i]) & 0x7fffffff;
            most = magnitude > most ? magnitude : most;
        }
        largest = as_float(most);
    } else {
        uint16_t most = 0;
        for (int64_t i = 0; i < hidden; ++i) {
            const uint16_t magnitude = row[i] & 0x7fff;
            most = magnitude > most ? magnitude : most;
        }
        largest = Format::to_float(most);
    }
    const float factor = 127.0f / largest;
    // 1.5 * 2^23: adding it leaves no place for fractions, and the integer in the lowest bits.
    constexpr float kRound = 12582912.0f;
    if (factor > 0.0f && factor <= 3e38f) {
        for (int64_t i = 0; i < hidden; ++i) {
            const float value = kSmooth ? scratch[i] : Format::to_float(row[i]);
            out[i] = static_cast<int8_t>(as_bits(value * factor + kRound) & 0xff);
        }
        return 1.0f / factor;
    }
    // All zero, infinite or not a number: what the vector unit makes of NaN is 0.
    for (int64_t i = 0; i < hidden; ++i) {
        float scaled = (kSmooth ? scratch[i] : Format::to_float(row[i])) * factor;
        scaled = scaled > 127.0f ? 127.0f : scaled;
        scaled = scaled < -127.0f ? -127.0f : scaled;
        const float rounded = (scaled + kRound) - kRound;
        out[i] = static_cast<int8_t>(rounded == rounded ? rounded : 0.0f);
    }
    return 1.0f / factor;
}

template <typename Format>
static inline __attribute__((always_inline)) float quantise_plain(int8_t* out, const uint16_t* row,
                                                                  int64_t hidden) {
    return quantise<Format, false>(out, row, nullptr, nullptr, hidden);
}

FOR_EACH_VECTOR_WIDTH(float, quantise_bf16, (int8_t* out, const uint16_t* row, int64_t hidden),
                      (out, row, hidden), quantise_plain<Bf16>)
FOR_EACH_VECTOR_WIDTH(float, quantise_fp16, (int8_t* out, const uint16_t* row, int64_t hidden),
                      (out, row, hidden), quantise_plain<Fp16>)
FOR_EACH_VECTOR_WIDTH(float, quantise_smooth_bf16,
                      (int8_t* out, const uint16_t* row, const float* smooth, float* scratch,
                       int64_t hidden),
                      (out, row, smooth, scratch, hidden), quantise<Bf16, true>)
FOR_EACH_VECTOR_WIDTH(float, quantise_smooth_fp16,
                      (int8_t* out, const uint16_t* row, const float* smooth, float* scratch,
                       int64_t hidden),
                      (out, row, smooth, scratch, hidden), quantise<Fp16, true>)

}  // namespace moe
