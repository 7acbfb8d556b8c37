// What kernels/device may take for granted about AscendC on arch 2201 (Atlas A2, A3), vector core:
// declarations only, for the device compile of kernels.device_check. Nothing here can run.
//
// Every name is one of asc-devkit, tags v8.5.0 and branch 9.1.0 (e5451c7f), in the header named
// above it: intf/ is include/basic_api/, impl/ is impl/basic_api/. Only what the kernels use is
// declared, in the overload they use; another overload is an error until it is read there and
// written down here. Element types are those the implementation for 2201 (impl/dav_c220) accepts:
// there a static_assert, or an assertion that only a debug build has.
//
// ASC_DEVKIT_MAJOR and ASC_DEVKIT_MINOR choose the version, as asc_devkit_version.h does.
#pragma once

#define CHECK_FROM_9_1 (ASC_DEVKIT_MAJOR > 9 || (ASC_DEVKIT_MAJOR == 9 && ASC_DEVKIT_MINOR >= 1))

// ---- The language of bisheng ----

// No <cstdint>: its functions and those of libc are the host's.
using int8_t = __INT8_TYPE__;
using int16_t = __INT16_TYPE__;
using int32_t = __INT32_TYPE__;
using int64_t = __INT64_TYPE__;
using uint8_t = __UINT8_TYPE__;
using uint16_t = __UINT16_TYPE__;
using uint32_t = __UINT32_TYPE__;
using uint64_t = __UINT64_TYPE__;

#define half _Float16  // 8.5's analyser: -Dhalf=__fp16 (asc_ast_device_analyzer.cpp:93): not a name
struct bfloat16_t {    // no scalar arithmetic and no scalar cast
    uint16_t bits;
};

// impl/kernel_macros.h: [aicore]; clang's nearest is CUDA's: it may call none but its like.
#define __aicore__ __attribute__((device))
#define __global__  // what it adds to __aicore__, the launch, is not compiled here
#define __mix__(cube_cores, vector_cores)
#if CHECK_FROM_9_1
#define __schedmode__(mode)  // before 9.1 an unknown name
#endif
// Numbers the target does not know: later clangs convert its own to plain pointers.
#define __gm__ __attribute__((address_space(101)))
#define __ubuf__ __attribute__((address_space(102)))
#define GM_ADDR __gm__ uint8_t*  // impl/utils/kernel_utils_macros.h

// Macros of bisheng's own __clang_cce_aicore_builtin_vars.h (CANN 8.1): not free as names.
__aicore__ int64_t get_block_idx();
__aicore__ int64_t get_block_num();
__aicore__ int64_t get_l2_vaddr_base();
__aicore__ int64_t get_l2_in_main();
__aicore__ int64_t get_status();
#define block_idx (get_block_idx())
#define block_num (get_block_num())
#define l2_vaddr_base get_l2_vaddr_base()
#define l2_in_main get_l2_in_main()
#define status get_status()

enum pipe_t { PIPE_S = 0, PIPE_V, PIPE_MTE2, PIPE_MTE3, PIPE_ALL };

namespace AscendC {

namespace check {
template <typename T, typename... Types>
constexpr bool kOneOf = (__is_same(T, Types) || ...);
template <typename T>
constexpr bool kFloating = kOneOf<T, half, float>;
template <typename T>
constexpr bool kUnsigned = kOneOf<T, bool, uint8_t, uint16_t, uint32_t, uint64_t>;
}  // namespace check

#define CHECK_TYPE(T, Name, ...)                 \
    static_assert(check::kOneOf<T, __VA_ARGS__>, \
                  #Name ": the element type does not exist on 2201, only " #__VA_ARGS__)

// ---- Tensors: intf/kernel_tensor.h, include/utils/common_types.h ----

enum class TPosition : int32_t { GM, VECIN, VECOUT, VECCALC };

template <typename T>
class GlobalTensor {
 public:
    __aicore__ GlobalTensor();
    __aicore__ void SetGlobalBuffer(__gm__ T* buffer);
    __aicore__ T GetValue(uint64_t offset) const;
};

template <typename T>
class LocalTensor {
 public:
    __aicore__ LocalTensor();
    __aicore__ T GetValue(uint32_t index) const;
    // impl/kernel_tensor_impl.h casts the value to the element type, so the rule for casts holds.
    template <typename U>
    __aicore__ void SetValue(uint32_t, U) const {
        static_assert(!(check::kFloating<T> && check::kUnsigned<U>) &&
                          !(check::kUnsigned<T> && check::kFloating<U>),
                      "SetValue casts between floating and unsigned integer");
        static_assert(check::kOneOf<T, bfloat16_t> == check::kOneOf<U, bfloat16_t>,
                      "SetValue casts to or from bfloat16_t");
    }
    template <typename U>
    __aicore__ LocalTensor<U> ReinterpretCast() const;
    __aicore__ LocalTensor operator[](uint32_t offset) const;
};

// ---- Buffers and queues: intf/kernel_tpipe.h ----

template <TPosition position>
class TBuf {
 public:
    __aicore__ TBuf() = default;
    template <typename T>
    __aicore__ LocalTensor<T> Get();
};

template <TPosition source, TPosition destination, int32_t depth>
class TQueBind {
    static_assert(depth != 0, "impl/kernel_tquebind_impl.h: other functions where depth is 0");

 public:
    __aicore__ TQueBind();
    template <typename T>
    __aicore__ LocalTensor<T> AllocTensor();
    template <typename T>
    __aicore__ bool EnQue(const LocalTensor<T>& tensor);
    template <typename T>
    __aicore__ LocalTensor<T> DeQue();
    template <typename T>
    __aicore__ void FreeTensor(LocalTensor<T>& tensor);
};

template <TPosition position, int32_t depth>
class TQue : public TQueBind<position, position, depth> {
 public:
    __aicore__ TQue() = default;
};

enum class HardEvent : uint8_t {  // impl/kernel_event.h, those of HardEventAiv
    MTE2_V,
    V_MTE2,
    MTE3_V,
    V_MTE3,
    V_V,
    MTE3_MTE2,
    MTE2_MTE3,
    S_V,
    V_S,
    S_MTE2,
    MTE2_S,
    S_MTE3,
    MTE3_S
};
using TEventID = int8_t;  // impl/kernel_tensor_base.h

class TPipe {
 public:
    __aicore__ TPipe();
    __aicore__ ~TPipe();
    template <TPosition position>
    __aicore__ bool InitBuffer(TBuf<position>& buffer, uint32_t bytes);
    template <TPosition source, TPosition destination, int32_t depth>
    __aicore__ bool InitBuffer(TQueBind<source, destination, depth>& queue, uint8_t number,
                               uint32_t bytes);
    __aicore__ TEventID FetchEventID(HardEvent event);
    __aicore__ void Reset();
};

// ---- Order and place: intf/kernel_operator_block_sync_intf.h, kernel_operator_sys_var_intf.h ----

template <HardEvent event>
__aicore__ void SetFlag(int32_t id);
template <HardEvent event>
__aicore__ void WaitFlag(int32_t id);
template <pipe_t pipe>
__aicore__ void PipeBarrier() {
    static_assert(pipe != PIPE_S, "docs 9.1.0, PipeBarrier_ISASI.md: not PIPE_S");
}
template <bool vector_cores_only = true>
__aicore__ void SyncAll();

__aicore__ int64_t GetBlockIdx();
__aicore__ int64_t GetBlockNum();
__aicore__ int64_t GetSystemCycle();

// ---- Copies: intf/kernel_operator_data_copy_intf.h, kernel_struct_data_copy.h ----

struct DataCopyExtParams {
    __aicore__ DataCopyExtParams(uint16_t blocks, uint32_t block_bytes, uint32_t source_stride,
                                 uint32_t destination_stride, uint32_t reserved);
};
template <typename T>
struct DataCopyPadExtParams {
    __aicore__ DataCopyPadExtParams();
};

// impl/dav_c220/kernel_operator_data_copy_impl.h: by the size of the element.
template <typename T>
constexpr bool kCopied = sizeof(T) == 1 || sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8;
template <typename T>
__aicore__ void DataCopyPad(const LocalTensor<T>&, const GlobalTensor<T>&, const DataCopyExtParams&,
                            const DataCopyPadExtParams<T>&) {
    static_assert(kCopied<T>, "DataCopyPad: elements of 1, 2, 4 or 8 bytes");
}
template <typename T>
__aicore__ void DataCopyPad(const GlobalTensor<T>&, const LocalTensor<T>&,
                            const DataCopyExtParams&) {
    static_assert(kCopied<T>, "DataCopyPad: elements of 1, 2, 4 or 8 bytes");
}

// intf/kernel_operator_set_atomic_intf.h. SetAtomicNone: from 9.0 also DisableDmaAtomic.
template <typename T>
__aicore__ void SetAtomicAdd() {
    CHECK_TYPE(T, SetAtomicAdd, half, float, int16_t, int32_t, int8_t, bfloat16_t);
}
template <typename T>
__aicore__ void SetAtomicMax() {
    CHECK_TYPE(T, SetAtomicMax, half, float, int16_t, int32_t, int8_t, bfloat16_t);
}
__aicore__ void SetAtomicNone();

}  // namespace AscendC

__aicore__ AscendC::TPipe* GetTPipePtr();  // intf/kernel_common.h: of no namespace

#include "cast.h"
#include "vector.h"
