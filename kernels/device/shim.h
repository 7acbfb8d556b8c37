// What differs between toolkits, and the few names the simulator adds. The only file of
// kernels/device with #if.
#pragma once

#include "kernel_operator.h"

// Functions of abi.h: without a qualifier a function is the host's.
#define MOE_ABI __aicore__

// The version of AscendC, which the build includes before (asc_devkit_version.h).
#ifdef ASC_DEVKIT_MAJOR
#define MOE_DEVKIT_FROM(major, minor) \
    (ASC_DEVKIT_MAJOR > (major) || (ASC_DEVKIT_MAJOR == (major) && ASC_DEVKIT_MINOR >= (minor)))
#else
#define MOE_DEVKIT_FROM(major, minor) 0
#endif

#ifdef ASCEND_MOE_HOSTSIM
using hostsim::PollPause;
using hostsim::PollScope;
using hostsim::PostDropped;
using hostsim::WaitDropped;
using FlagName = hostsim::RankFlag;
#define MOE_FLAG(text) \
    hostsim::RankFlag { text, hostsim::Loc::Here() }
#define MOE_KERNEL __global__ __aicore__
// Functions of this file hand on where they were called from, so that a finding names that line.
#define MOE_CALLER_PARAMETER , hostsim::Loc caller = hostsim::Loc::Here()
#define MOE_CALLER , caller
#else
// Vector cores only, with hardware SyncAll: 0 cube cores to 1. Batch mode starts all blocks
// together or none, so that two kernels with SyncAll on two streams cannot wait for each other's
// cores; before 9.1 it cannot be asked for here.
#if MOE_DEVKIT_FROM(9, 1)
#define MOE_KERNEL __schedmode__(1) __mix__(0, 1) __global__ __aicore__
#else
#define MOE_KERNEL __mix__(0, 1) __global__ __aicore__
#endif
#define MOE_CALLER_PARAMETER
#define MOE_CALLER
// Marks GM reads that may see memory nobody wrote.
struct PollScope {
    __aicore__ inline PollScope() {}
};
// Flags have names in the simulator only: no strings in device code. There a proof may drop them.
using FlagName = uint32_t;
#define MOE_FLAG(text) 0
__aicore__ inline bool WaitDropped(FlagName) { return false; }
__aicore__ inline bool PostDropped(FlagName) { return false; }
__aicore__ inline void PollPause(FlagName, uint32_t, uint32_t) {}
#endif

// Everything issued on the first pipe so far completes before the second pipe goes on.
#define MOE_SYNC(event)                                                                   \
    do {                                                                                  \
        int32_t moe_event_id =                                                            \
            static_cast<int32_t>(GetTPipePtr()->FetchEventID(AscendC::HardEvent::event)); \
        AscendC::SetFlag<AscendC::HardEvent::event>(moe_event_id);                        \
        AscendC::WaitFlag<AscendC::HardEvent::event>(moe_event_id);                       \
    } while (0)

// Vector instructions that depend on each other.
#define MOE_VBARRIER() AscendC::PipeBarrier<PIPE_V>()

// All cores of this rank: what each has written is there when any goes on. SyncAll alone does not
// drain copies.
#define MOE_SYNC_ALL()                    \
    do {                                  \
        AscendC::PipeBarrier<PIPE_ALL>(); \
        AscendC::SyncAll<true>();         \
    } while (0)

namespace ascend_moe {

// One result per block, 8 floats or 16 halves. CANN 9.1 renamed BlockReduceMax and changed the
// order of its arguments.
template <typename T>
__aicore__ inline void MaxOfBlocks(const AscendC::LocalTensor<T>& dst,
                                   const AscendC::LocalTensor<T>& src,
                                   int32_t repeat MOE_CALLER_PARAMETER) {
    constexpr int32_t mask = 256 / sizeof(T);
#if MOE_DEVKIT_FROM(9, 1)
    AscendC::ReduceDataBlock<AscendC::ReduceType::MAX>(dst, src, mask, repeat, 1, 1, 8);
#else
    AscendC::BlockReduceMax<T>(dst, src, repeat, mask, 1, 1, 8 MOE_CALLER);
#endif
}

template <typename T>
__aicore__ inline AscendC::GlobalTensor<T> At(uint64_t address) {
    AscendC::GlobalTensor<T> tensor;
    tensor.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(address));
    return tensor;
}

// Any number of bytes, GM to UB and back.
template <typename T>
__aicore__ inline void Load(const AscendC::LocalTensor<T>& dst, const AscendC::GlobalTensor<T>& src,
                            uint32_t count MOE_CALLER_PARAMETER) {
    AscendC::DataCopyPad(
        dst, src, AscendC::DataCopyExtParams{1, static_cast<uint32_t>(count * sizeof(T)), 0, 0, 0},
        AscendC::DataCopyPadExtParams<T> {} MOE_CALLER);
}
template <typename T>
__aicore__ inline void Store(const AscendC::GlobalTensor<T>& dst,
                             const AscendC::LocalTensor<T>& src,
                             uint32_t count MOE_CALLER_PARAMETER) {
    AscendC::DataCopyPad(dst, src,
                         AscendC::DataCopyExtParams{1, static_cast<uint32_t>(count * sizeof(T)), 0,
                                                    0, 0} MOE_CALLER);
}

// Adds to GM instead of overwriting it; many cores may add to the same block.
__aicore__ inline void StoreAdding(const AscendC::GlobalTensor<int32_t>& dst,
                                   const AscendC::LocalTensor<int32_t>& src,
                                   uint32_t count MOE_CALLER_PARAMETER) {
    AscendC::SetAtomicAdd<int32_t>();
    Store(dst, src, count MOE_CALLER);
    AscendC::SetAtomicNone();
}
// The same with the larger of two words.
__aicore__ inline void StoreLarger(const AscendC::GlobalTensor<int32_t>& dst,
                                   const AscendC::LocalTensor<int32_t>& src,
                                   uint32_t count MOE_CALLER_PARAMETER) {
    AscendC::SetAtomicMax<int32_t>();
    Store(dst, src, count MOE_CALLER);
    AscendC::SetAtomicNone();
}

}  // namespace ascend_moe
