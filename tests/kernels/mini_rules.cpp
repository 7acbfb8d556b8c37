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
MINI(mini_align_block_len) {
    Frame f(from, to);
    DataCopyPad(f.ub, f.in, DataCopyExtParams{1, 6, 0, 0, 0}, DataCopyPadExtParams<float>{});
}
MINI(mini_align_overlap) {
    Frame f(from, to);
    Duplicate(f.ub, 1.0f, kCount);
    PipeBarrier<PIPE_V>();
    Adds(f.ub[8], f.ub, 1.0f, 64);
}
MINI(mini_align_brcb_in_place) {
    Frame f(from, to);
    Duplicate(f.ub, 1.0f, kCount);
    PipeBarrier<PIPE_V>();
    Brcb(f.ub, f.ub, 1, BrcbRepeatParams{1, 8});
}
MINI(mini_align_block_max_in_place) {
    Frame f(from, to);
    Duplicate(f.ub, 1.0f, kCount);
    PipeBarrier<PIPE_V>();
    BlockReduceMax<float>(f.ub, f.ub, 1, 64, 1, 1, 8);
}
MINI(mini_align_gather_mask_of_nothing) {
    Frame f(from, to);
    Duplicate(f.ub, 1.0f, kCount);
    uint64_t kept = 0;
    GatherMask(f.ub2[128], f.ub, f.ub2.ReinterpretCast<uint32_t>(), true, 0,
               GatherMaskParams{1, 1, 0, 0}, kept);
}
MINI(mini_align_reduce_of_nothing) {
    Frame f(from, to);
    ReduceMax(f.ub2, f.ub, f.ub2[8], 0);
}

// Gathers `count` words, each from byte `offset` of `in`, with operands as large as they need be.
namespace {
void GatherWords(GM_ADDR from, GM_ADDR to, uint32_t count, uint32_t offset, bool in_place) {
    Frame f(from, to);
    Calc offsets_buffer, result;
    f.pipe.InitBuffer(offsets_buffer, 4 * count);
    f.pipe.InitBuffer(result, 4 * count);
    LocalTensor<uint32_t> offsets = offsets_buffer.Get<uint32_t>();
    Duplicate(f.ub, 1.0f, kCount);
    Duplicate(offsets, offset, count);
    PipeBarrier<PIPE_V>();
    Gather(in_place ? f.ub : result.Get<float>(), f.ub, offsets, 0, count);
}
}  // namespace
MINI(mini_gather) { GatherWords(from, to, 64 * 256 - 1, 4, false); }
MINI(mini_align_gather_count) { GatherWords(from, to, 64 * 256, 4, false); }
MINI(mini_align_gather_offset) { GatherWords(from, to, 64, 2, false); }
MINI(mini_align_gather_in_place) { GatherWords(from, to, 64, 4, true); }

// The largest of 256 floats. A value per repeat is not enough: its index is written beside it.
namespace {
void Largest(GM_ADDR from, GM_ADDR to, uint32_t work_bytes, bool small_result) {
    Frame f(from, to);
    Calc work;
    f.pipe.InitBuffer(work, work_bytes);
    Duplicate(f.ub, 1.0f, kCount);
    PipeBarrier<PIPE_V>();
    LocalTensor<float> result = f.ub2;
    if (small_result) result = LocalTensor<float>(result.At(), 4);
    ReduceMax(result, f.ub, work.Get<float>(), kCount);
}
}  // namespace
MINI(mini_reduce) { Largest(from, to, 2 * 4 * 4, false); }
MINI(mini_ub_bounds_reduce_work) {
    Frame f(from, to);
    Calc large, work;
    f.pipe.InitBuffer(large, 4 * 5 * 64);
    f.pipe.InitBuffer(work, 32);
    Duplicate(large.Get<float>(), 1.0f, 5 * 64);
    PipeBarrier<PIPE_V>();
    ReduceMax(f.ub2, large.Get<float>(), work.Get<float>(), 5 * 64);
}
MINI(mini_ub_bounds_reduce_result) { Largest(from, to, 2 * 4 * 4, true); }
// A value per repeat is not enough: the instruction writes its index beside it.
MINI(mini_uninit_deq_scale) {
    Frame f(from, to);
    LocalTensor<int32_t> integers = f.ub.ReinterpretCast<int32_t>();
    Duplicate(integers, 1, kCount);
    PipeBarrier<PIPE_V>();
    Cast(f.ub2.ReinterpretCast<half>(), integers, RoundMode::CAST_NONE, kCount);
}

// Two functions write by the scalar unit as well; nothing waits for what it overwrites.
namespace {
void StoreThen(GM_ADDR from, GM_ADDR to, bool scalar_waits, bool index) {
    Frame f(from, to);
    Calc work;
    f.pipe.InitBuffer(work, 64);
    Duplicate(f.ub, 1.0f, kCount);
    Duplicate(f.ub2, 1.0f, kCount);
    Sync<HardEvent::V_MTE3>();
    DataCopy(f.out, f.ub2, kCount);
    Sync<HardEvent::MTE3_V>();
    if (scalar_waits) Sync<HardEvent::MTE3_S>();
    if (index && scalar_waits) Sync<HardEvent::V_S>();
    if (index) {
        CreateVecIndex(f.ub2, 0.0f, kCount);
    } else {
        PipeBarrier<PIPE_V>();
        ReduceMax(f.ub2, f.ub, work.Get<float>(), kCount);
    }
}
}  // namespace
MINI(mini_reduce_behind_a_store) { StoreThen(from, to, true, false); }
MINI(mini_hazard_reduce_behind_a_store) { StoreThen(from, to, false, false); }
MINI(mini_index_behind_a_store) { StoreThen(from, to, true, true); }
MINI(mini_hazard_index_behind_a_store) { StoreThen(from, to, false, true); }
