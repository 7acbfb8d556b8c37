// Vector instructions on the first `count` elements. Part of kernel_operator.h.
#pragma once

namespace AscendC {

#define CHECK_BINARY(Name, ...)                                                               \
    template <typename T>                                                                     \
    __aicore__ void Name(const LocalTensor<T>&, const LocalTensor<T>&, const LocalTensor<T>&, \
                         const int32_t&) {                                                    \
        CHECK_TYPE(T, Name, __VA_ARGS__);                                                     \
    }
#define CHECK_SCALAR(Name, ...)                                                                    \
    template <typename T>                                                                          \
    __aicore__ void Name(const LocalTensor<T>&, const LocalTensor<T>&, const T&, const int32_t&) { \
        CHECK_TYPE(T, Name, __VA_ARGS__);                                                          \
    }
#define CHECK_UNARY(Name, ...)                                                           \
    template <typename T>                                                                \
    __aicore__ void Name(const LocalTensor<T>&, const LocalTensor<T>&, const int32_t&) { \
        CHECK_TYPE(T, Name, __VA_ARGS__);                                                \
    }

// intf/kernel_operator_vec_binary_intf.h. And takes 32-bit types too, but counts in 16 bits.
CHECK_BINARY(Add, half, float, int16_t, int32_t)
CHECK_BINARY(Mul, half, float, int16_t, int32_t)
CHECK_BINARY(Div, half, float)
CHECK_BINARY(And, int16_t, uint16_t)

// intf/kernel_operator_vec_binary_scalar_intf.h
CHECK_SCALAR(Adds, half, float, int16_t, int32_t)
CHECK_SCALAR(Muls, half, float, int16_t, int32_t)
CHECK_SCALAR(ShiftRight, uint16_t, uint32_t, int16_t, int32_t)

// intf/kernel_operator_vec_ternary_scalar_intf.h
template <typename T, typename U>
__aicore__ void Axpy(const LocalTensor<T>&, const LocalTensor<U>&, const U&, const int32_t&) {
    CHECK_TYPE(U, Axpy, half, float);
    static_assert(__is_same(T, U) || sizeof(T) == 4, "Axpy: half or float to float, half to half");
}

// intf/kernel_operator_vec_binary_intf.h
template <typename T, typename U>
__aicore__ void MulAddDst(const LocalTensor<T>&, const LocalTensor<U>&, const LocalTensor<U>&,
                          const int32_t&) {
    CHECK_TYPE(U, MulAddDst, half, float);
    static_assert(__is_same(T, U) || sizeof(T) == 4,
                  "MulAddDst: half or float to float, half to half");
}

// intf/kernel_operator_vec_unary_intf.h
CHECK_UNARY(Abs, half, float)
CHECK_UNARY(Exp, half, float)

// intf/kernel_operator_vec_duplicate_intf.h
template <typename T>
__aicore__ void Duplicate(const LocalTensor<T>&, const T&, const int32_t&) {
    CHECK_TYPE(T, Duplicate, half, bfloat16_t, int16_t, uint16_t, int32_t, uint32_t, float);
}

// intf/kernel_operator_vec_createvecindex_intf.h
template <typename T>
__aicore__ void CreateVecIndex(LocalTensor<T>, const T&, uint32_t) {
    CHECK_TYPE(T, CreateVecIndex, half, int16_t, float, int32_t);
}

// intf/kernel_operator_vec_cmpsel_intf.h. int32_t compares EQ only, which the kernels do not need.
enum class CMPMODE : uint8_t { LT = 0, GT, EQ, LE, GE, NE };  // impl/utils/kernel_utils_mode.h
template <typename T, typename U>
__aicore__ void CompareScalar(const LocalTensor<U>&, const LocalTensor<T>&, T, CMPMODE, uint32_t) {
    CHECK_TYPE(T, CompareScalar, half, float);
    CHECK_TYPE(U, CompareScalar, uint8_t);
}

// intf/kernel_operator_vec_gather_mask_intf.h, kernel_struct_gather.h
struct GatherMaskParams {
    __aicore__ GatherMaskParams(uint8_t source_block_stride, uint16_t repeats,
                                uint16_t source_repeat_stride, uint8_t pattern_repeat_stride);
};
template <typename T, typename U>
__aicore__ void GatherMask(const LocalTensor<T>&, const LocalTensor<T>&, const LocalTensor<U>&,
                           bool, uint32_t, const GatherMaskParams&, uint64_t&) {
    CHECK_TYPE(T, GatherMask, half, bfloat16_t, uint16_t, int16_t, float, uint32_t, int32_t);
    CHECK_TYPE(U, GatherMask, uint16_t, uint32_t);
    static_assert(sizeof(T) == sizeof(U), "GatherMask: the pattern is as wide as the elements");
}

// intf/kernel_operator_vec_gather_intf.h
template <typename T>
__aicore__ void Gather(const LocalTensor<T>&, const LocalTensor<T>&, const LocalTensor<uint32_t>&,
                       uint32_t, uint32_t) {
    CHECK_TYPE(T, Gather, half, bfloat16_t, uint16_t, int16_t, float, uint32_t, int32_t);
}

// intf/kernel_operator_vec_reduce_intf.h
template <typename T>
__aicore__ void ReduceMax(const LocalTensor<T>&, const LocalTensor<T>&, const LocalTensor<T>&,
                          int32_t, bool = false) {
    CHECK_TYPE(T, ReduceMax, half, float);
}
#if CHECK_FROM_9_1
enum class ReduceType { NONE = -1, SUM = 0, MAX, MIN };  // impl/utils/common_types.h
// In this order: mask, repeats, strides.
template <ReduceType type, typename T, typename U>
__aicore__ void ReduceDataBlock(const LocalTensor<T>&, const LocalTensor<U>&, int32_t, int32_t,
                                int32_t, int32_t, int32_t) {
    static_assert(type != ReduceType::NONE, "ReduceDataBlock: SUM, MAX or MIN");
    static_assert(__is_same(T, U), "ReduceDataBlock: one type on 2201");
    CHECK_TYPE(T, ReduceDataBlock, half, float);
}
#else
// In this order: repeats, mask, strides.
template <typename T>
__aicore__ void BlockReduceMax(const LocalTensor<T>&, const LocalTensor<T>&, int32_t, int32_t,
                               int32_t, int32_t, int32_t) {
    CHECK_TYPE(T, BlockReduceMax, half, float);
}
#endif

// intf/kernel_operator_vec_brcb_intf.h, kernel_struct_brcb.h
struct BrcbRepeatParams {
    __aicore__ BrcbRepeatParams(uint16_t block_stride, uint16_t repeat_stride);
};
template <typename T>
__aicore__ void Brcb(const LocalTensor<T>&, const LocalTensor<T>&, uint8_t,
                     const BrcbRepeatParams&) {
    CHECK_TYPE(T, Brcb, half, bfloat16_t, int16_t, uint16_t, float, int32_t, uint32_t);
}

}  // namespace AscendC
