// Hierarchy: the sum of one token, whose rows are added server by server.
//
//   Add       a row of the current server: fp32, the first times its weight, each further one a
//             fused multiply-add
//   Cross     the server's sum is rounded, to the type of the rows or to int8 with comm_quant_mode
//             2, crosses the link and is added to the sums of the servers before it
//   Finish    rounds once more
//
// Here rows travel straight to the owner of their token, which does what its relays would have
// done: the same numbers in the same order. Sources: moe_distribute_combine_v2_layered.h (A3) and
// moe_distribute_combine_a2_layered.h (A2) of ops-transformer.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "numerics.h"

namespace ascend_moe {

// The fp16 nearest to factor * other + addend. In double the product is exact, and what the sum
// loses lies too deep to matter; on the way down to fp16 the float in between remembers in its last
// bit whether anything was cut off.
inline Float16 FusedMultiplyAdd(Float16 factor, Float16 other, Float16 addend) {
    const double exact = static_cast<double>(static_cast<float>(factor)) *
                             static_cast<double>(static_cast<float>(other)) +
                         static_cast<double>(static_cast<float>(addend));
    float odd = static_cast<float>(exact);
    uint32_t bits;
    memcpy(&bits, &odd, sizeof(bits));
    if (static_cast<double>(odd) != exact && (bits & 1) == 0)
        odd = std::nextafter(odd, exact > odd ? INFINITY : -INFINITY);
    return Float16(odd);
}

template <typename Element>
class ServerSum {
 public:
    ServerSum(int64_t hidden, bool quantised)
        : quantised_(quantised), partial_(hidden), total_(hidden), total_half_(hidden) {}

    void Add(const Element* row, float weight) {
        for (size_t i = 0; i < partial_.size(); ++i) {
            const float value = row[i];
            partial_[i] = begun_ ? std::fma(value, weight, partial_[i]) : value * weight;
        }
        begun_ = true;
    }

    void Cross() {
        if (!begun_) return;
        begun_ = false;
        if (!quantised_) {
            for (size_t i = 0; i < total_.size(); ++i)
                total_[i] += static_cast<float>(Element(partial_[i]));
        } else if constexpr (std::is_same_v<Element, Float16>) {
            CrossInBlocks(16);
        } else {
            CrossInBlocks(8);
        }
    }

    // Leaves zeros for the next token.
    void Finish(Element* sum) {
        for (size_t i = 0; i < total_.size(); ++i) {
            sum[i] =
                AddsInHalf() ? Element(static_cast<float>(total_half_[i])) : Element(total_[i]);
            total_[i] = 0.0f;
            total_half_[i] = Float16(0.0f);
        }
    }

 private:
    // int8 sums of fp16 rows: every step is rounded to fp16.
    bool AddsInHalf() const { return quantised_ && std::is_same_v<Element, Float16>; }
    float Step(float value) const {
        return AddsInHalf() ? static_cast<float>(Float16(value)) : value;
    }

    void CrossInBlocks(size_t block) {
        const float inverse = Step(static_cast<float>(1.0 / 127.0));
        for (size_t begin = 0; begin < partial_.size(); begin += block) {
            const size_t end = std::min(begin + block, partial_.size());
            float largest = 0.0f;
            for (size_t i = begin; i < end; ++i) {
                partial_[i] = Step(partial_[i]);
                const float magnitude = std::fabs(partial_[i]);
                if (magnitude > largest || std::isnan(magnitude)) largest = magnitude;
            }
            const float scale = Step(largest * inverse);
            const float stored = Element(scale);
            for (size_t i = begin; i < end; ++i) {
                const float sent = ToInt8(Float16(Step(partial_[i] / scale)), -128.0f);
                if (AddsInHalf()) {
                    total_half_[i] =
                        FusedMultiplyAdd(Float16(sent), Float16(stored), total_half_[i]);
                } else {
                    total_[i] = std::fma(sent, stored, total_[i]);
                }
            }
        }
    }

    const bool quantised_;
    bool begun_ = false;  // a row of the current server has been added
    std::vector<float> partial_, total_;
    std::vector<Float16> total_half_;
};

}  // namespace ascend_moe
