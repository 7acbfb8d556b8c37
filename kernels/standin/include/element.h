// The element types of device memory, for host code that plays the device.
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "acl/acl.h"

namespace standin {

// bfloat16: the upper half of a float; rounding is half to even.
struct BFloat16 {
    uint16_t bits;

    BFloat16() = default;
    BFloat16(float value) {
        uint32_t word;
        memcpy(&word, &value, sizeof(word));
        const bool is_nan = (word & 0x7fffffffu) > 0x7f800000u;
        bits = is_nan ? 0x7fc0 : (word + 0x7fffu + ((word >> 16) & 1)) >> 16;
    }
    operator float() const {
        const uint32_t word = uint32_t{bits} << 16;
        float value;
        memcpy(&value, &word, sizeof(value));
        return value;
    }
};

// IEEE half precision; rounding is half to even.
struct Float16 {
    uint16_t bits;

    Float16() = default;
    Float16(float value) {
        uint32_t word;
        memcpy(&word, &value, sizeof(word));
        const uint16_t sign = (word >> 16) & 0x8000;
        const float magnitude = std::fabs(value);
        if (std::isnan(value)) {
            bits = sign | 0x7e00;
        } else if (magnitude >= 65520.0f) {  // rounds to infinity
            bits = sign | 0x7c00;
        } else if (magnitude < 0x1p-14f) {  // subnormal: a multiple of 2^-24
            bits = sign | static_cast<uint16_t>(std::nearbyint(magnitude * 0x1p24f));
        } else {
            const uint32_t rounded = (word & 0x7fffffff) + 0xfff + ((word >> 13) & 1);
            bits = sign | static_cast<uint16_t>((rounded - (112u << 23)) >> 13);
        }
    }
    operator float() const {
        const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
        const int exponent = (bits >> 10) & 31;
        const int fraction = bits & 1023;
        if (exponent == 31) return fraction != 0 ? NAN : sign * INFINITY;
        if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
        return sign * std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
    }
};

template <typename T>
struct Tag {
    using Type = T;
};

// Calls `body` with the tag of the C++ type of `type`; false when the type is not one of the list.
template <typename Body>
bool WithElementType(aclDataType type, Body body) {
    switch (type) {
        case ACL_FLOAT:
            body(Tag<float>());
            return true;
        case ACL_FLOAT16:
            body(Tag<Float16>());
            return true;
        case ACL_BF16:
            body(Tag<BFloat16>());
            return true;
        case ACL_DOUBLE:
            body(Tag<double>());
            return true;
        case ACL_INT8:
            body(Tag<int8_t>());
            return true;
        case ACL_INT16:
            body(Tag<int16_t>());
            return true;
        case ACL_INT32:
            body(Tag<int32_t>());
            return true;
        case ACL_INT64:
            body(Tag<int64_t>());
            return true;
        case ACL_UINT8:
            body(Tag<uint8_t>());
            return true;
        case ACL_UINT16:
            body(Tag<uint16_t>());
            return true;
        case ACL_UINT32:
            body(Tag<uint32_t>());
            return true;
        case ACL_UINT64:
            body(Tag<uint64_t>());
            return true;
        case ACL_BOOL:
            body(Tag<bool>());
            return true;
        case ACL_COMPLEX64:
            body(Tag<std::complex<float>>());
            return true;
        case ACL_COMPLEX128:
            body(Tag<std::complex<double>>());
            return true;
        default:
            return false;
    }
}

template <typename T>
struct IsComplex : std::false_type {};
template <typename T>
struct IsComplex<std::complex<T>> : std::true_type {};

// Conversion as in torch: to bool by comparison with zero, between floats through float, complex to
// real drops the imaginary part.
template <typename To, typename From>
To Convert(const From& value) {
    if constexpr (std::is_same_v<To, From>) {
        return value;
    } else if constexpr (IsComplex<From>::value && IsComplex<To>::value) {
        return To(static_cast<typename To::value_type>(value.real()),
                  static_cast<typename To::value_type>(value.imag()));
    } else if constexpr (IsComplex<From>::value) {
        if constexpr (std::is_same_v<To, bool>) return value != From();
        return Convert<To>(value.real());
    } else if constexpr (IsComplex<To>::value) {
        return To(Convert<typename To::value_type>(value));
    } else if constexpr (std::is_same_v<From, Float16> || std::is_same_v<From, BFloat16>) {
        return Convert<To>(static_cast<float>(value));
    } else if constexpr (std::is_same_v<To, bool>) {
        return value != From();
    } else if constexpr (std::is_same_v<To, Float16> || std::is_same_v<To, BFloat16>) {
        return To(static_cast<float>(value));
    } else {
        return static_cast<To>(value);
    }
}

}  // namespace standin
