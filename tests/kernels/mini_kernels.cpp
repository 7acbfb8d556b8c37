// Small kernels with one mistake each in how accesses are ordered, beside the correct kernel they
// were made from; and kernels for the simulator's numerics.
#include "mini.h"

namespace {

// in * 2 + 1, correct but for what the mistake leaves out.
enum Mistake { kNone, kNoLoadWait, kNoBarrier, kNoStoreWait, kNoReuseWait };
void DoubleAndAdd(GM_ADDR from, GM_ADDR to, Mistake mistake) {
    Frame f(from, to);
    DataCopy(f.ub, f.in, kCount);
    if (mistake != kNoLoadWait) Sync<HardEvent::MTE2_V>();
    Muls(f.ub2, f.ub, 2.0f, kCount);
    if (mistake != kNoBarrier) PipeBarrier<PIPE_V>();
    Adds(f.ub2, f.ub2, 1.0f, kCount);
    if (mistake != kNoStoreWait) Sync<HardEvent::V_MTE3>();
    DataCopy(f.out, f.ub2, kCount);
    if (mistake != kNoReuseWait) Sync<HardEvent::MTE3_V>();
    Duplicate(f.ub2, 0.0f, kCount);
}

}  // namespace

MINI(mini_correct) { DoubleAndAdd(from, to, kNone); }
MINI(mini_hazard_load) { DoubleAndAdd(from, to, kNoLoadWait); }
MINI(mini_hazard_vector) { DoubleAndAdd(from, to, kNoBarrier); }
MINI(mini_hazard_store) { DoubleAndAdd(from, to, kNoStoreWait); }
MINI(mini_hazard_reuse) { DoubleAndAdd(from, to, kNoReuseWait); }

MINI(mini_hazard_scalar) {
    Frame f(from, to);
    for (uint32_t i = 0; i < kCount; ++i) f.ub.SetValue(i, 1.0f);
    DataCopy(f.out, f.ub, kCount);  // S_MTE3 is missing
}
MINI(mini_uninit_ub) {
    Frame f(from, to);
    DataCopy(f.out, f.ub, kCount);
}
MINI(mini_uninit_gm) {
    Frame f(from, to);
    DataCopy(f.ub, f.out, kCount);
}
MINI(mini_uninit_padding) {
    Frame f(from, to);
    DataCopyPad(f.ub, f.in, DataCopyExtParams{1, 20, 0, 0, 0}, DataCopyPadExtParams<float>{});
    Sync<HardEvent::MTE2_MTE3>();
    DataCopy(f.out, f.ub, 8);  // five elements are defined
}
MINI(mini_scalar_cache_dirty) {
    Frame f(from, to);
    f.out.SetValue(0, 1.0f);
}
MINI(mini_scalar_cache_stale) {
    Frame f(from, to);
    f.in.GetValue(0);  // caches the line
    Duplicate(f.ub, 5.0f, 8);
    Sync<HardEvent::V_MTE3>();
    DataCopy(f.in, f.ub, 8);
    Sync<HardEvent::MTE3_S>();
    f.in.GetValue(0);
}
MINI(mini_scalar_cache_cleaned) {
    Frame f(from, to);
    f.out.SetValue(0, 1.0f);
    DataCacheCleanAndInvalid<float, CacheLine::SINGLE_CACHE_LINE, DcciDst::CACHELINE_OUT>(f.out);
}
MINI(mini_block_sharing) {
    Frame f(from, to);
    Duplicate(f.ub, 5.0f, 8);
    Sync<HardEvent::V_MTE3>();
    DataCopyPad(f.out[GetBlockIdx()], f.ub, DataCopyExtParams{1, 4, 0, 0, 0});
}
MINI(mini_block_taken_over) {  // the same block by two cores, one after the other
    Frame f(from, to);
    Duplicate(f.ub, 5.0f, 8);
    Sync<HardEvent::V_MTE3>();
    for (int64_t core = 0; core < GetBlockNum(); ++core) {
        if (core == GetBlockIdx()) DataCopy(f.out, f.ub, 8);
        PipeBarrier<PIPE_ALL>();
        SyncAll();
    }
}
namespace {
void Add(GM_ADDR from, GM_ADDR to, bool to_unwritten, bool turn_off) {
    Frame f(from, to);
    LocalTensor<int32_t> ones = f.ub.ReinterpretCast<int32_t>();
    GlobalTensor<int32_t> sums;
    sums.SetGlobalBuffer(reinterpret_cast<int32_t*>(to_unwritten ? to : from));
    Duplicate(ones, 1, 8);
    Sync<HardEvent::V_MTE3>();
    SetAtomicAdd<int32_t>();
    DataCopy(sums, ones, 8);
    if (turn_off) SetAtomicNone();
}
}  // namespace
MINI(mini_add) { Add(from, to, false, true); }
MINI(mini_add_uninit) { Add(from, to, true, true); }
MINI(mini_add_left_on) { Add(from, to, false, false); }

MINI(mini_reads_input) {
    Frame f(from, to);
    DataCopy(f.ub, f.in, kCount);
    for (int i = 0; i < 200; ++i) Sync<HardEvent::MTE2_V>();  // takes its time
}
MINI(mini_writes_input) {
    Frame f(from, to);
    Duplicate(f.ub, 5.0f, kCount);
    Sync<HardEvent::V_MTE3>();
    DataCopy(f.in, f.ub, kCount);
}
MINI(mini_uninit_scalar_ub) {
    Frame f(from, to);
    f.ub.GetValue(3);
}
MINI(mini_uninit_scalar_gm) {
    Frame f(from, to);
    f.out.GetValue(3);
}
// Two cores write one cache line by scalars; the one that cleans last takes the other's word back.
MINI(mini_scalar_line_shared) {
    Frame f(from, to);
    int64_t core = GetBlockIdx();
    f.out.SetValue(8 * core, 1.0f);
    SyncAll();
    for (int64_t turn = 0; turn < GetBlockNum(); ++turn) {
        if (turn == core)
            DataCacheCleanAndInvalid<float, CacheLine::SINGLE_CACHE_LINE, DcciDst::CACHELINE_OUT>(
                f.out[8 * core]);
        PipeBarrier<PIPE_ALL>();
        SyncAll();
    }
}

MINI(mini_deadlock) {
    Frame f(from, to);
    while (true) {
        {
            hostsim::PollScope poll;
            DataCopy(f.ub, f.out, 8);
        }
        Sync<HardEvent::MTE2_S>();
        if (f.ub.GetValue(0) == 1.0f) return;
        Sync<HardEvent::S_MTE2>();
        hostsim::PollPause("a flag", 7, 1);
    }
}
MINI(mini_sync_all_skipped) {
    if (GetBlockIdx() == 0) SyncAll();
}

// Core 0 publishes 192 floats with a flag behind them, core 1 waits for the flag and reads. Without
// the barrier the flag may overtake.
namespace {
void Publish(GM_ADDR from, GM_ADDR to, bool barrier) {
    Frame f(from, to);
    if (GetBlockIdx() == 0) {
        Duplicate(f.ub, 5.0f, kCount);
        Sync<HardEvent::V_MTE3>();
        DataCopy(f.out, f.ub, 192);
        if (barrier) PipeBarrier<PIPE_MTE3>();
        DataCopy(f.out[192], f.ub, 8);
        return;
    }
    while (true) {
        {
            hostsim::PollScope poll;
            DataCopy(f.ub, f.out[192], 8);
        }
        Sync<HardEvent::MTE2_S>();
        if (f.ub.GetValue(0) == 5.0f) break;
        Sync<HardEvent::S_MTE2>();
        hostsim::PollPause("the flag", 0, 1);
    }
    DataCopy(f.ub2, f.out, 192);  // finds memory nobody wrote if the data is not there
}
}  // namespace
MINI(mini_flag_after_data) { Publish(from, to, true); }
MINI(mini_flag_overtakes) { Publish(from, to, false); }

// SyncAll does not drain: the other core may not see the copy yet.
namespace {
void Share(GM_ADDR from, GM_ADDR to, bool drain) {
    Frame f(from, to);
    if (GetBlockIdx() == 0) {
        Duplicate(f.ub, 5.0f, kCount);
        Sync<HardEvent::V_MTE3>();
        DataCopy(f.out, f.ub, kCount);
        if (drain) PipeBarrier<PIPE_ALL>();
    }
    SyncAll();
    if (GetBlockIdx() == 1) DataCopy(f.ub2, f.out, kCount);
}
}  // namespace
MINI(mini_sync_all_drained) { Share(from, to, true); }
MINI(mini_sync_all_undrained) { Share(from, to, false); }

// Numerics: floats of `in` through another type and back into `out`.
namespace {
template <typename Narrow>
void Through(GM_ADDR from, GM_ADDR to, RoundMode mode) {
    Frame f(from, to);
    DataCopy(f.ub, f.in, kCount);
    Sync<HardEvent::MTE2_V>();
    Cast(f.ub2.ReinterpretCast<Narrow>(), f.ub, mode, kCount);
    PipeBarrier<PIPE_V>();
    Cast(f.ub, f.ub2.ReinterpretCast<Narrow>(), RoundMode::CAST_NONE, kCount);
    Sync<HardEvent::V_MTE3>();
    DataCopy(f.out, f.ub, kCount);
}
}  // namespace
MINI(mini_through_bfloat16) { Through<bfloat16_t>(from, to, RoundMode::CAST_RINT); }
MINI(mini_through_half) { Through<half>(from, to, RoundMode::CAST_RINT); }
MINI(mini_through_int32) { Through<int32_t>(from, to, RoundMode::CAST_RINT); }
MINI(mini_through_int32_floor) { Through<int32_t>(from, to, RoundMode::CAST_FLOOR); }
