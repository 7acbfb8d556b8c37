// The arithmetic that must match the kernels bit for bit. All of it is fp32 with one rounding per
// step; build without contraction of multiply and add (-ffp-contract=off).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "element.h"

namespace ascend_moe {

using standin::BFloat16;
using standin::Float16;

// A float among the int32 words that ranks send.
inline int32_t BitsOf(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}
inline float FloatOf(int32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

// Half to even, NaN to 0, as the vector unit converts.
inline int8_t ToInt8(float value, float lowest = -127.0f) {
    if (std::isnan(value)) return 0;
    return static_cast<int8_t>(std::nearbyint(std::fmin(std::fmax(value, lowest), 127.0f)));
}

// quant_mode 2: one row to int8. `smooth` may be null. Returns the scale that dynamic_scales holds:
// 1 / (127 / max), two divisions.
template <typename Element>
float QuantiseRow(const Element* row, const float* smooth, int64_t hidden, int8_t* quantised) {
    const auto value = [&](int64_t i) {
        const float element = row[i];
        return smooth == nullptr ? element : element * smooth[i];
    };
    float largest = 0.0f;
    for (int64_t i = 0; i < hidden; ++i) {
        const float magnitude = std::fabs(value(i));
        if (magnitude > largest || std::isnan(magnitude)) largest = magnitude;
    }
    const float factor = 127.0f / largest;
    for (int64_t i = 0; i < hidden; ++i) quantised[i] = ToInt8(value(i) * factor);
    return 1.0f / factor;
}

// comm_quant_mode 2: what arrives when a row travels as int8, in blocks of 8 elements with a scale
// each. The sender divides by the fp32 scale, the receiver multiplies by the scale as stored in the
// row's type.
template <typename Element>
void ThroughCommQuant(Element* row, int64_t hidden) {
    constexpr int64_t kBlock = 8;
    const float inverse = static_cast<float>(1.0 / 127.0);
    for (int64_t begin = 0; begin < hidden; begin += kBlock) {
        const int64_t end = begin + kBlock < hidden ? begin + kBlock : hidden;
        float largest = 0.0f;
        for (int64_t i = begin; i < end; ++i) {
            const float magnitude = std::fabs(static_cast<float>(row[i]));
            if (magnitude > largest || std::isnan(magnitude)) largest = magnitude;
        }
        const float scale = largest * inverse;
        const float stored = Element(scale);
        for (int64_t i = begin; i < end; ++i) {
            const float sent = ToInt8(Float16(static_cast<float>(row[i]) / scale));
            row[i] = Element(sent * stored);
        }
    }
}

}  // namespace ascend_moe
