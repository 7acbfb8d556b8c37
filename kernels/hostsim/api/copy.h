// Copies between GM and UB, and the scalar data cache.
#pragma once

#include "tensor.h"
#include "types.h"

namespace AscendC {

namespace detail {

template <typename T>
void Load(const LocalTensor<T>& dst, const GlobalTensor<T>& src, hostsim::CopyShape shape,
          hostsim::Loc loc) {
    hostsim::Core* core = hostsim::g_core;
    core->Begin(PIPE_MTE2, loc);
    core->Align(dst.At() % 32 == 0, "the UB operand of a copy is not 32-byte aligned");
    core->Align(src.Address() % sizeof(T) == 0,
                "the GM operand of a copy is not aligned to its element");
    if (shape.count == 0 || shape.bytes == 0) return;
    if (!dst.Holds(static_cast<uint64_t>(shape.count - 1) * shape.ub_pitch,
                   shape.bytes + shape.pad_bytes))
        return;
    shape.ub = dst.At();
    shape.gm = src.Address();
    core->Load(shape);
}

template <typename T>
void Store(const GlobalTensor<T>& dst, const LocalTensor<T>& src, hostsim::CopyShape shape,
           hostsim::Loc loc) {
    hostsim::Core* core = hostsim::g_core;
    core->Begin(PIPE_MTE3, loc);
    core->Align(src.At() % 32 == 0, "the UB operand of a copy is not 32-byte aligned");
    core->Align(dst.Address() % sizeof(T) == 0,
                "the GM operand of a copy is not aligned to its element");
    if (shape.count == 0 || shape.bytes == 0) return;
    if (!src.Holds(static_cast<uint64_t>(shape.count - 1) * shape.ub_pitch, shape.bytes)) return;
    shape.ub = src.At();
    shape.gm = dst.Address();
    core->Store(shape);
}

inline uint32_t Round32(uint32_t bytes) { return (bytes + 31) / 32 * 32; }

inline void CheckPadParams(const DataCopyExtParams& p, uint32_t element) {
    hostsim::g_core->Align(p.blockCount <= 4095 && p.blockLen <= 2097151,
                           "blockCount is 0..4095 and blockLen 0..2097151 bytes");
    hostsim::g_core->Align(p.blockLen % element == 0, "blockLen is not whole elements");
}

}  // namespace detail

// Whole 32-byte blocks: floor(count * sizeof(T) / 32) of them.
template <typename T>
void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src, uint32_t count,
              hostsim::Loc loc = hostsim::Loc::Here()) {
    detail::Load(dst, src, {0, 0, 1, static_cast<uint32_t>(count * sizeof(T) / 32 * 32), 0, 0, 0},
                 loc);
}
template <typename T>
void DataCopy(const GlobalTensor<T>& dst, const LocalTensor<T>& src, uint32_t count,
              hostsim::Loc loc = hostsim::Loc::Here()) {
    detail::Store(dst, src, {0, 0, 1, static_cast<uint32_t>(count * sizeof(T) / 32 * 32), 0, 0, 0},
                  loc);
}

// Any number of bytes. In UB every block starts on a 32-byte boundary; loading leaves undefined
// bytes up to the next one.
template <typename T>
void DataCopyPad(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const DataCopyExtParams& p,
                 const DataCopyPadExtParams<T>& pad, hostsim::Loc loc = hostsim::Loc::Here()) {
    hostsim::g_core->where = loc;
    detail::CheckPadParams(p, sizeof(T));
    hostsim::g_core->Align(!pad.isPad, "padding with values is not part of the subset");
    uint32_t in_ub = detail::Round32(p.blockLen);
    detail::Load(dst, src,
                 {0, 0, p.blockCount, p.blockLen, static_cast<uint64_t>(p.blockLen) + p.srcStride,
                  in_ub + p.dstStride * 32, in_ub - p.blockLen},
                 loc);
}
template <typename T>
void DataCopyPad(const GlobalTensor<T>& dst, const LocalTensor<T>& src, const DataCopyExtParams& p,
                 hostsim::Loc loc = hostsim::Loc::Here()) {
    hostsim::g_core->where = loc;
    detail::CheckPadParams(p, sizeof(T));
    detail::Store(dst, src,
                  {0, 0, p.blockCount, p.blockLen, static_cast<uint64_t>(p.blockLen) + p.dstStride,
                   detail::Round32(p.blockLen) + p.srcStride * 32, 0},
                  loc);
}

// Until SetAtomicNone, copies to GM add to what is there, word by word, or leave the larger word.
template <typename T>
void SetAtomicAdd(hostsim::Loc loc = hostsim::Loc::Here()) {
    static_assert(std::is_same_v<T, int32_t>, "int32_t here");
    hostsim::g_core->SetAtomic(hostsim::Atomic::kAdd, loc);
}
template <typename T>
void SetAtomicMax(hostsim::Loc loc = hostsim::Loc::Here()) {
    static_assert(std::is_same_v<T, int32_t>, "int32_t here");
    hostsim::g_core->SetAtomic(hostsim::Atomic::kMax, loc);
}
inline void SetAtomicNone(hostsim::Loc loc = hostsim::Loc::Here()) {
    hostsim::g_core->SetAtomic(hostsim::Atomic::kNone, loc);
}

// Writes the 64-byte line (or all lines) back if dirty and drops it.
template <typename T, CacheLine entire, DcciDst destination>
void DataCacheCleanAndInvalid(const GlobalTensor<T>& at, hostsim::Loc loc = hostsim::Loc::Here()) {
    hostsim::g_core->CleanCache(at.Address(), entire == CacheLine::ENTIRE_DATA_CACHE, loc);
}

}  // namespace AscendC
