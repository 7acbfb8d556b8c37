// Vector instructions, all on PIPE_V, in their "first count elements" form unless noted.
#pragma once

#include <algorithm>

#include "../sim/world.h"
#include "tensor.h"
#include "types.h"

namespace AscendC {

namespace detail {

// Whether what is written may be the very tensor that is read. Partly the same it may never be:
// later iterations would read what earlier ones wrote.
enum class InPlace { kAllowed, kRefused };

// One vector instruction: declares its operands to the checker.
class VectorInstruction {
 public:
    VectorInstruction(hostsim::Loc loc, hostsim_vector_kind kind)
        : core_(hostsim::g_core), loc_(loc), kind_(kind) {
        core_->Begin(PIPE_V, loc);
    }
    ~VectorInstruction() {
        if (core_->timed) core_->world->timeline->Vector(core_, kind_, widest_, loc_);
    }
    VectorInstruction(const VectorInstruction&) = delete;
    template <typename T>
    bool Reads(const LocalTensor<T>& t, uint64_t count) {
        if (!Holds(t, count)) return false;
        core_->Read(t.At(), static_cast<uint32_t>(count * sizeof(T)));
        return true;
    }
    template <typename T>
    bool Writes(const LocalTensor<T>& t, uint64_t count, InPlace in_place = InPlace::kAllowed) {
        if (!Holds(t, count)) return false;
        const Range to = sources_[--sources_used_];
        for (uint32_t i = 0; i < sources_used_; ++i) {
            const Range& from = sources_[i];
            const bool apart = from.end <= to.begin || to.end <= from.begin;
            const bool same = from.begin == to.begin && from.end == to.end;
            core_->Align(apart || (same && in_place == InPlace::kAllowed),
                         "the operand that is written overlaps one that is read");
        }
        core_->Write(t.At(), static_cast<uint32_t>(count * sizeof(T)));
        core_->MarkWritten(t.At(), static_cast<uint32_t>(count * sizeof(T)), true);
        core_->launch->counters.vector_elements += count;
        return true;
    }
    // What is added to: read and written.
    template <typename T>
    bool Accumulates(const LocalTensor<T>& t, uint64_t count) {
        core_->Read(t.At(), static_cast<uint32_t>(count * sizeof(T)));
        return Writes(t, count, InPlace::kRefused);
    }

 private:
    struct Range {
        uint64_t begin, end;
    };
    static constexpr uint32_t kOperands = 4;

    template <typename T>
    bool Holds(const LocalTensor<T>& t, uint64_t count) {
        core_->Align(t.At() % 32 == 0, "a vector operand is not 32-byte aligned");
        sources_[sources_used_++] = {t.At(), t.At() + count * sizeof(T)};
        widest_ = std::max(widest_, count * sizeof(T));
        return t.Holds(0, count * sizeof(T));
    }

    hostsim::Core* core_;
    hostsim::Loc loc_;
    hostsim_vector_kind kind_;
    uint64_t widest_ = 0;  // bytes of the widest operand
    Range sources_[kOperands];
    uint32_t sources_used_ = 0;
};

template <typename T, typename F>
void Unary(const LocalTensor<T>& dst, const LocalTensor<T>& src, int32_t count, hostsim::Loc loc,
           F f) {
    VectorInstruction in(loc, HOSTSIM_ONE_SOURCE);
    if (!in.Reads(src, count) || !in.Writes(dst, count)) return;
    T* to = dst.Host();
    const T* from = src.Host();
    for (int32_t i = 0; i < count; ++i) to[i] = f(from[i]);
}

template <typename T, typename F>
void Binary(const LocalTensor<T>& dst, const LocalTensor<T>& a, const LocalTensor<T>& b,
            int32_t count, hostsim::Loc loc, F f, hostsim_vector_kind kind = HOSTSIM_TWO_SOURCES) {
    VectorInstruction in(loc, kind);
    if (!in.Reads(a, count) || !in.Reads(b, count) || !in.Writes(dst, count)) return;
    T* to = dst.Host();
    const T *left = a.Host(), *right = b.Host();
    for (int32_t i = 0; i < count; ++i) to[i] = f(left[i], right[i]);
}

template <typename T>
constexpr bool kIsHalf = std::is_same_v<T, half>;
template <typename T>
constexpr bool kArithmetic = std::is_same_v<T, float> || std::is_same_v<T, int32_t> || kIsHalf<T>;

// Half computes in double, where a product is exact and a quotient or a sum is close enough, and is
// rounded once: on the way through float the last bit remembers whether anything was cut off.
inline half Nearest(double value) {
    float narrow = static_cast<float>(value);
    if (std::isfinite(narrow) && narrow != value) {
        float toward =
            std::fabs(narrow) > std::fabs(value) ? std::nextafterf(narrow, 0.0f) : narrow;
        uint32_t bits;
        std::memcpy(&bits, &toward, sizeof(bits));
        bits |= 1;
        std::memcpy(&narrow, &bits, sizeof(bits));
    }
    return half(narrow);
}
template <typename T>
auto Wide(T value) {
    if constexpr (kIsHalf<T>) {
        return static_cast<double>(static_cast<float>(value));
    } else {
        return value;
    }
}
template <typename T, typename W>
T Narrow(W value) {
    if constexpr (kIsHalf<T>) {
        return Nearest(value);
    } else {
        return static_cast<T>(value);
    }
}

}  // namespace detail

template <typename T>
void Duplicate(const LocalTensor<T>& dst, T value, int32_t count,
               hostsim::Loc loc = hostsim::Loc::Here()) {
    static_assert(sizeof(T) == 2 || sizeof(T) == 4, "no 8- or 64-bit Duplicate");
    detail::VectorInstruction in(loc, HOSTSIM_ONE_SOURCE);
    if (in.Writes(dst, count)) std::fill_n(dst.Host(), count, value);
}

#define HOSTSIM_SCALAR_OP(Name, expression)                                                  \
    template <typename T>                                                                    \
    void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src, T scalar, int32_t count, \
              hostsim::Loc loc = hostsim::Loc::Here()) {                                     \
        static_assert(detail::kArithmetic<T>, "half, float and int32_t here");               \
        detail::Unary(dst, src, count, loc, [scalar](T element) {                            \
            const auto v = detail::Wide(element), s = detail::Wide(scalar);                  \
            return detail::Narrow<T>(expression);                                            \
        });                                                                                  \
    }
HOSTSIM_SCALAR_OP(Adds, v + s)
HOSTSIM_SCALAR_OP(Muls, v* s)
#undef HOSTSIM_SCALAR_OP

#define HOSTSIM_BINARY_OP(Name, kind, Types, expression)                                   \
    template <typename T>                                                                  \
    void Name(const LocalTensor<T>& dst, const LocalTensor<T>& a, const LocalTensor<T>& b, \
              int32_t count, hostsim::Loc loc = hostsim::Loc::Here()) {                    \
        static_assert(Types, "element type not supported by " #Name);                      \
        detail::Binary(                                                                    \
            dst, a, b, count, loc,                                                         \
            [](T left, T right) {                                                          \
                const auto x = detail::Wide(left), y = detail::Wide(right);                \
                return detail::Narrow<T>(expression);                                      \
            },                                                                             \
            kind);                                                                         \
    }
HOSTSIM_BINARY_OP(Add, HOSTSIM_TWO_SOURCES, detail::kArithmetic<T>, x + y)
HOSTSIM_BINARY_OP(Mul, HOSTSIM_TWO_SOURCES, detail::kArithmetic<T>, x* y)
HOSTSIM_BINARY_OP(Div, HOSTSIM_DIVIDE, (std::is_same_v<T, float> || detail::kIsHalf<T>), x / y)
HOSTSIM_BINARY_OP(And, HOSTSIM_TWO_SOURCES, (std::is_same_v<T, uint16_t>), x& y)
#undef HOSTSIM_BINARY_OP

// dst += src * scalar, one rounding: nothing public says so for certain, docs/kernels-hierarchy.md,
// section 7.
inline void Axpy(const LocalTensor<float>& dst, const LocalTensor<float>& src, float scalar,
                 int32_t count, hostsim::Loc loc = hostsim::Loc::Here()) {
    detail::VectorInstruction in(loc, HOSTSIM_TWO_SOURCES);
    if (!in.Reads(src, count) || !in.Accumulates(dst, count)) return;
    for (int32_t i = 0; i < count; ++i)
        dst.Host()[i] = std::fma(src.Host()[i], scalar, dst.Host()[i]);
}

// dst += a * b, likewise.
template <typename T>
void MulAddDst(const LocalTensor<T>& dst, const LocalTensor<T>& a, const LocalTensor<T>& b,
               int32_t count, hostsim::Loc loc = hostsim::Loc::Here()) {
    static_assert(std::is_same_v<T, float> || detail::kIsHalf<T>, "half and float");
    detail::VectorInstruction in(loc, HOSTSIM_TWO_SOURCES);
    if (!in.Reads(a, count) || !in.Reads(b, count) || !in.Accumulates(dst, count)) return;
    for (int32_t i = 0; i < count; ++i) {
        dst.Host()[i] = detail::Narrow<T>(std::fma(
            detail::Wide(a.Host()[i]), detail::Wide(b.Host()[i]), detail::Wide(dst.Host()[i])));
    }
}

// Clears the sign bit, also of NaN.
template <typename T>
void Abs(const LocalTensor<T>& dst, const LocalTensor<T>& src, int32_t count,
         hostsim::Loc loc = hostsim::Loc::Here()) {
    detail::Unary(dst, src, count, loc, [](T v) {
        if constexpr (detail::kIsHalf<T>) {
            v.bits &= 0x7fff;
            return v;
        } else {
            return std::fabs(v);
        }
    });
}

// Correctly rounded here; the instruction has an error of its own.
inline void Exp(const LocalTensor<float>& dst, const LocalTensor<float>& src, int32_t count,
                hostsim::Loc loc = hostsim::Loc::Here()) {
    detail::Unary(dst, src, count, loc,
                  [](float v) { return static_cast<float>(std::exp(static_cast<double>(v))); });
}

// Arithmetic shift of int32.
inline void ShiftRight(const LocalTensor<int32_t>& dst, const LocalTensor<int32_t>& src, int32_t s,
                       int32_t count, hostsim::Loc loc = hostsim::Loc::Here()) {
    detail::Unary(dst, src, count, loc, [s](int32_t v) { return v >> s; });
}

// The first block is written by the scalar unit, without a wait for anything before.
template <typename T>
void CreateVecIndex(const LocalTensor<T>& dst, T first, uint32_t count,
                    hostsim::Loc loc = hostsim::Loc::Here()) {
    static_assert(detail::kArithmetic<T>, "float and int32_t here");
    detail::VectorInstruction in(loc, HOSTSIM_ONE_SOURCE);
    hostsim::g_core->AlsoWrites(PIPE_S, dst.At(), 32, false);
    if (!in.Writes(dst, count)) return;
    for (uint32_t i = 0; i < count; ++i) dst.Host()[i] = static_cast<T>(first + static_cast<T>(i));
}

// Bit i of dst (least significant first) is src[i] <mode> s. count * 4 must be a multiple of 256
// bytes. int32 compares EQ only.
template <typename T>
void CompareScalar(const LocalTensor<uint8_t>& dst, const LocalTensor<T>& src, T s, CMPMODE mode,
                   uint32_t count, hostsim::Loc loc = hostsim::Loc::Here()) {
    static_assert(detail::kArithmetic<T>, "float and int32_t here");
    detail::VectorInstruction in(loc, HOSTSIM_TWO_SOURCES);
    hostsim::g_core->Align(count * sizeof(T) % 256 == 0,
                           "CompareScalar needs a multiple of 256 bytes");
    hostsim::g_core->Align((std::is_same_v<T, float>) || mode == CMPMODE::EQ,
                           "int32 compares EQ only");
    if (!in.Reads(src, count) || !in.Writes(dst, count / 8)) return;
    for (uint32_t byte = 0; byte < count / 8; ++byte) {
        uint8_t bits = 0;
        for (int i = 0; i < 8; ++i) {
            T v = src.Host()[byte * 8 + i];
            bool set = false;
            switch (mode) {
                case CMPMODE::LT:
                    set = v < s;
                    break;
                case CMPMODE::GT:
                    set = v > s;
                    break;
                case CMPMODE::EQ:
                    set = v == s;
                    break;
                case CMPMODE::LE:
                    set = v <= s;
                    break;
                case CMPMODE::GE:
                    set = v >= s;
                    break;
                case CMPMODE::NE:
                    set = v != s;
                    break;
            }
            bits |= static_cast<uint8_t>(set) << i;
        }
        dst.Host()[byte] = bits;
    }
}

// Keeps the elements whose pattern bit is set. Only the reduceMode form with one repeat: `mask`
// elements are looked at.
template <typename T>
void GatherMask(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                const LocalTensor<uint32_t>& pattern, bool reduce_mode, uint32_t mask,
                const GatherMaskParams& p, uint64_t& kept,
                hostsim::Loc loc = hostsim::Loc::Here()) {
    static_assert(sizeof(T) == 4, "32-bit elements with a uint32_t pattern");
    detail::VectorInstruction in(loc, HOSTSIM_COMPACT);
    hostsim::g_core->Align(reduce_mode && p.repeatTimes == 1 && p.src0BlockStride == 1,
                           "only reduceMode with one dense repeat is in the subset");
    hostsim::g_core->Align(mask > 0, "reduceMode needs a mask of at least 1");
    kept = 0;
    if (!in.Reads(src, mask) ||
        !in.Reads(pattern.template ReinterpretCast<uint8_t>(), (mask + 7) / 8))
        return;
    const uint8_t* bits = reinterpret_cast<const uint8_t*>(pattern.Host());
    std::vector<T> out;
    for (uint32_t i = 0; i < mask; ++i) {
        if (bits[i / 8] >> (i % 8) & 1) out.push_back(src.Host()[i]);
    }
    if (!in.Writes(dst, out.size())) return;
    std::copy(out.begin(), out.end(), dst.Host());
    kept = out.size();
}

// dst[i] = element at byte base + offsets[i] of src.
template <typename T>
void Gather(const LocalTensor<T>& dst, const LocalTensor<T>& src,
            const LocalTensor<uint32_t>& offsets, uint32_t base, uint32_t count,
            hostsim::Loc loc = hostsim::Loc::Here()) {
    static_assert(sizeof(T) == 4, "32-bit elements here");
    detail::VectorInstruction in(loc, HOSTSIM_TWO_SOURCES);
    hostsim::g_core->Align(count / 64 <= 255,
                           "the repeats of Gather are 8 bits: at most 16383 elements of 4 bytes");
    if (!in.Reads(offsets, count)) return;
    hostsim::g_core->Align(dst.At() + count * sizeof(T) <= src.At() ||
                               src.At() + src.GetSize() * sizeof(T) <= dst.At(),
                           "Gather writes what it gathers from");
    hostsim::g_core->Align(src.At() % 32 == 0, "a vector operand is not 32-byte aligned");
    std::vector<T> out(count);
    for (uint32_t i = 0; i < count; ++i) {
        uint32_t at = base + offsets.Host()[i];
        hostsim::g_core->Align(at % sizeof(T) == 0,
                               "an offset of Gather is not aligned to the element");
        if (!src.Holds(at, sizeof(T))) return;
        hostsim::g_core->Read(src.At() + at, sizeof(T));
        std::memcpy(&out[i], reinterpret_cast<const uint8_t*>(src.Host()) + at, sizeof(T));
    }
    if (in.Writes(dst, count)) std::copy(out.begin(), out.end(), dst.Host());
}

// dst[0] = largest element. `tmp` holds value and index of every repeat, also when no index is
// asked for. The scalar unit, which has waited for the vector unit, puts the result into dst, and
// reads two elements there.
inline void ReduceMax(const LocalTensor<float>& dst, const LocalTensor<float>& src,
                      const LocalTensor<float>& tmp, int32_t count, bool index = false,
                      hostsim::Loc loc = hostsim::Loc::Here()) {
    detail::VectorInstruction in(loc, HOSTSIM_TWO_SOURCES);
    hostsim::g_core->Align(!index, "the index is not part of the subset");
    hostsim::g_core->Align(count >= 1, "ReduceMax of no element");
    if (count < 1 || !in.Reads(src, count) || !in.Writes(tmp, 2 * ((count + 63) / 64)) ||
        !dst.Holds(0, 2 * sizeof(float)))
        return;
    float best = *std::max_element(src.Host(), src.Host() + count);
    hostsim::g_core->AlsoWrites(PIPE_S, dst.At(), sizeof(float), true);
    if (in.Writes(dst, 1)) dst.Host()[0] = best;
}

// One result per 32-byte block. Argument order repeat, mask (v8.5); all strides dense here.
template <typename T>
void BlockReduceMax(const LocalTensor<T>& dst, const LocalTensor<T>& src, int32_t repeat,
                    int32_t mask, int32_t dst_repeat, int32_t src_block, int32_t src_repeat,
                    hostsim::Loc loc = hostsim::Loc::Here()) {
    static_assert(std::is_same_v<T, float> || detail::kIsHalf<T>, "half and float");
    constexpr int32_t kBlock = 32 / sizeof(T);
    detail::VectorInstruction in(loc, HOSTSIM_ONE_SOURCE);
    hostsim::g_core->Align(repeat >= 0 && repeat <= 255 && mask == 8 * kBlock && dst_repeat == 1 &&
                               src_block == 1 && src_repeat == 8,
                           "only dense full repeats are in the subset");
    if (!in.Reads(src, repeat * mask) || !in.Writes(dst, repeat * 8, detail::InPlace::kRefused))
        return;
    const auto less = [](T a, T b) { return detail::Wide(a) < detail::Wide(b); };
    for (int32_t b = 0; b < repeat * 8; ++b) {
        const T* block = src.Host() + b * kBlock;
        dst.Host()[b] = *std::max_element(block, block + kBlock, less);
    }
}

// Element i of src fills block i of dst, eight per repeat.
template <typename T>
void Brcb(const LocalTensor<T>& dst, const LocalTensor<T>& src, uint8_t repeat,
          const BrcbRepeatParams& p, hostsim::Loc loc = hostsim::Loc::Here()) {
    static_assert(std::is_same_v<T, float> || detail::kIsHalf<T>, "half and float here");
    constexpr int32_t kBlock = 32 / sizeof(T);
    detail::VectorInstruction in(loc, HOSTSIM_ONE_SOURCE);
    hostsim::g_core->Align(p.dstBlkStride == 1 && p.dstRepStride == 8,
                           "only dense Brcb is in the subset");
    if (!in.Reads(src, repeat * 8) ||
        !in.Writes(dst, repeat * 8 * kBlock, detail::InPlace::kRefused))
        return;
    for (int32_t i = 0; i < repeat * 8; ++i)
        std::fill_n(dst.Host() + i * kBlock, kBlock, src.Host()[i]);
}

}  // namespace AscendC
