// Small kernels with one mistake each in an operand: alignment, counts, bounds, modes that do not
// exist or are not in the subset.
#include "mini.h"

MINI(mini_align_ub) {
    Frame f(from, to);
    DataCopy(f.ub[1], f.in, 8);
}
MINI(mini_align_cast) {
    Frame f(from, to);
    Duplicate(f.ub, 1.0f, kCount);
    PipeBarrier<PIPE_V>();
    Cast(f.ub2.ReinterpretCast<bfloat16_t>(), f.ub, RoundMode::CAST_NONE,
         kCount);  // float to bfloat16 has no CAST_NONE
}
MINI(mini_align_compare) {
    Frame f(from, to);
    Duplicate(f.ub, 1.0f, kCount);
    PipeBarrier<PIPE_V>();
    CompareScalar(f.ub2.ReinterpretCast<uint8_t>(), f.ub, 0.0f, CMPMODE::GT,
                  40);  // 160 bytes, not a multiple of 256
}
MINI(mini_ub_capacity) {
    Frame f(from, to);
    Calc big;
    f.pipe.InitBuffer(big, 196608);
}
MINI(mini_ub_bounds) {
    Frame f(from, to);
    Duplicate(f.ub2, 0.0f, kCount + 8);
}
MINI(mini_gm_bounds) {
    Frame f(from, to);
    DataCopyPad(f.ub[8], f.in[kCount - 7], DataCopyExtParams{1, 32, 0, 0, 0},
                DataCopyPadExtParams<float>{});
}
MINI(mini_gm_bounds_write) {
    Frame f(from, to);
    Duplicate(f.ub, 5.0f, kCount);
    Sync<HardEvent::V_MTE3>();
    DataCopy(f.out[kCount - 8], f.ub, 16);
}
MINI(mini_align_gm) {
    Frame f(from, to);
    GlobalTensor<float> odd;
    odd.SetGlobalBuffer(reinterpret_cast<float*>(from + 2));
    DataCopy(f.ub, odd, 8);
}
MINI(mini_align_scalar) {
    Frame f(from, to);
    GlobalTensor<float> odd;
    odd.SetGlobalBuffer(reinterpret_cast<float*>(from + 2));
    odd.GetValue(0);
}
MINI(mini_align_vector) {
    Frame f(from, to);
    Duplicate(f.ub[1], 0.0f, 8);
}
MINI(mini_align_count) {
    Frame f(from, to);
    DataCopyPad(f.ub, f.in, DataCopyExtParams{4096, 0, 0, 0, 0}, DataCopyPadExtParams<float>{});
}
MINI(mini_align_repeat) {
    Frame f(from, to);
    Duplicate(f.ub, 0.0f, kCount);
    PipeBarrier<PIPE_V>();
    BlockReduceMax<float>(f.ub2, f.ub, 4, 64, 1, 1, 7);
}
MINI(mini_align_width) {
    Frame f(from, to);
    Duplicate(f.ub, 0.0f, kCount);
    PipeBarrier<PIPE_V>();
    Cast(f.ub.ReinterpretCast<half>(), f.ub, RoundMode::CAST_RINT, kCount);
}
MINI(mini_align_store_ub) {
    Frame f(from, to);
    Duplicate(f.ub, 5.0f, kCount);
    Sync<HardEvent::V_MTE3>();
    DataCopy(f.out, f.ub[1], 8);
}
MINI(mini_align_store_gm) {
    Frame f(from, to);
    GlobalTensor<float> odd;
    odd.SetGlobalBuffer(reinterpret_cast<float*>(to + 2));
    Duplicate(f.ub, 5.0f, kCount);
    Sync<HardEvent::V_MTE3>();
    DataCopy(odd, f.ub, 8);
}
MINI(mini_align_scalar_write) {
    Frame f(from, to);
    GlobalTensor<float> odd;
    odd.SetGlobalBuffer(reinterpret_cast<float*>(to + 2));
    odd.SetValue(0, 1.0f);
    DataCacheCleanAndInvalid<float, CacheLine::SINGLE_CACHE_LINE, DcciDst::CACHELINE_OUT>(odd);
}
MINI(mini_align_vector_source) {
    Frame f(from, to);
    Duplicate(f.ub, 0.0f, kCount);
    PipeBarrier<PIPE_V>();
    Muls(f.ub2, f.ub[1], 2.0f, 8);
}
MINI(mini_align_store_count) {
    Frame f(from, to);
    DataCopyPad(f.out, f.ub, DataCopyExtParams{4096, 0, 0, 0, 0});
}
MINI(mini_align_padding) {
    Frame f(from, to);
    DataCopyPad(f.ub, f.in, DataCopyExtParams{1, 20, 0, 0, 0},
                DataCopyPadExtParams<float>{true, 0, 3, 0.0f});
}
MINI(mini_align_compare_int) {
    Frame f(from, to);
    LocalTensor<int32_t> ids = f.ub.ReinterpretCast<int32_t>();
    Duplicate(ids, 1, kCount);
    PipeBarrier<PIPE_V>();
    CompareScalar(f.ub2.ReinterpretCast<uint8_t>(), ids, 0, CMPMODE::GT, 64);
}
MINI(mini_align_gather_mask) {
    Frame f(from, to);
    Duplicate(f.ub, 1.0f, kCount);
    Duplicate(f.ub2, 0.0f, kCount);
    PipeBarrier<PIPE_V>();
    uint64_t kept = 0;
    GatherMask(f.ub2[128], f.ub, f.ub2.ReinterpretCast<uint32_t>(), true, 64,
               GatherMaskParams{1, 2, 8, 0}, kept);
}
MINI(mini_align_max_index) {
    Frame f(from, to);
    Duplicate(f.ub, 1.0f, kCount);
    PipeBarrier<PIPE_V>();
    ReduceMax(f.ub2, f.ub, f.ub2[8], 64, true);
}
MINI(mini_align_brcb) {
    Frame f(from, to);
    Duplicate(f.ub, 1.0f, kCount);
    PipeBarrier<PIPE_V>();
    Brcb(f.ub2, f.ub, 1, BrcbRepeatParams{2, 8});
}
MINI(mini_align_scalar_barrier) { PipeBarrier<PIPE_S>(); }
