// The arithmetic that must equal the oracle in every bit: no fused multiply-add, no reordering.
// Built with -ffp-contract=off; the vector width changes nothing because no sum crosses lanes.
#pragma once

#include <cstdint>
#include <cstring>

// One body, compiled for several vector widths and chosen when the library is loaded. Sanitizers
// cannot run before the choice is made.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define FOR_EACH_VECTOR_WIDTH \
    __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_VECTOR_WIDTH __attribute__((target_clones("avx2", "default")))
#endif
#else
#define FOR_EACH_VECTOR_WIDTH
#endif

namespace moe {

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
    static inline float to_float(uint16_t value) {
        return as_float(static_cast<uint32_t>(value) << 16);
    }
    static inline uint16_t from_float(float value) {
        const uint32_t bits = as_bits(value);
        const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
    }
};

// In plain integer and fp32 steps that every compiler turns into vectors.
struct Fp16 {
    static inline float to_float(uint16_t value) {
        const uint32_t sign = static_cast<uint32_t>(value & 0x8000) << 16;
        const uint32_t shifted = static_cast<uint32_t>(value & 0x7fff) << 13;
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

constexpr int64_t kColumns = 512;  // summed at a time; the fp32 sums stay in the first cache

template <typename Format>
static inline __attribute__((always_inline)) void add_up(uint16_t* out, const Addend* addends,
                                                         int64_t count, int64_t hidden) {
    float sum[kColumns];
    for (int64_t begin = 0; begin < hidden; begin += kColumns) {
        const int64_t width = hidden - begin < kColumns ? hidden - begin : kColumns;
        for (int64_t i = 0; i < width; ++i) sum[i] = 0.0f;
        int64_t at = 0;
        while (at < count) {
            const Addend* now = addends + at;
            if (now[0].wide) {
                const float* row = static_cast<const float*>(now[0].row) + begin;
                for (int64_t i = 0; i < width; ++i) sum[i] += row[i] * now[0].weight;
                at += 1;
                continue;
            }
            const auto* a = static_cast<const uint16_t*>(now[0].row) + begin;
            const float wa = now[0].weight;
            const bool four = at + 4 <= count && !now[1].wide && !now[2].wide && !now[3].wide;
            if (!four) {
                for (int64_t i = 0; i < width; ++i) sum[i] += Format::to_float(a[i]) * wa;
                at += 1;
                continue;
            }
            const auto* b = static_cast<const uint16_t*>(now[1].row) + begin;
            const auto* c = static_cast<const uint16_t*>(now[2].row) + begin;
            const auto* d = static_cast<const uint16_t*>(now[3].row) + begin;
            const float wb = now[1].weight, wc = now[2].weight, wd = now[3].weight;
            for (int64_t i = 0; i < width; ++i) {
                float total = sum[i] + Format::to_float(a[i]) * wa;
                total += Format::to_float(b[i]) * wb;
                total += Format::to_float(c[i]) * wc;
                sum[i] = total + Format::to_float(d[i]) * wd;
            }
            at += 4;
        }
        for (int64_t i = 0; i < width; ++i) out[begin + i] = Format::from_float(sum[i]);
    }
}

FOR_EACH_VECTOR_WIDTH
inline void add_up_bf16(uint16_t* out, const Addend* addends, int64_t count, int64_t hidden) {
    add_up<Bf16>(out, addends, count, hidden);
}

FOR_EACH_VECTOR_WIDTH
inline void add_up_fp16(uint16_t* out, const Addend* addends, int64_t count, int64_t hidden) {
    add_up<Fp16>(out, addends, count, hidden);
}

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

FOR_EACH_VECTOR_WIDTH
inline float quantise_bf16(int8_t* out, const uint16_t* row, int64_t hidden) {
    return quantise<Bf16, false>(out, row, nullptr, nullptr, hidden);
}

FOR_EACH_VECTOR_WIDTH
inline float quantise_fp16(int8_t* out, const uint16_t* row, int64_t hidden) {
    return quantise<Fp16, false>(out, row, nullptr, nullptr, hidden);
}

FOR_EACH_VECTOR_WIDTH
inline float quantise_smooth_bf16(int8_t* out, const uint16_t* row, const float* smooth,
                                  float* scratch, int64_t hidden) {
    return quantise<Bf16, true>(out, row, smooth, scratch, hidden);
}

FOR_EACH_VECTOR_WIDTH
inline float quantise_smooth_fp16(int8_t* out, const uint16_t* row, const float* smooth,
                                  float* scratch, int64_t hidden) {
    return quantise<Fp16, true>(out, row, smooth, scratch, hidden);
}

}  // namespace moe
