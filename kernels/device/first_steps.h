// The first truths of a new machine, for scripts/npu_check: every core runs once, and one row
// reaches a neighbour. Both kernels use what the operators are made of and nothing more, so that a
// failure here has few causes.
#pragma once

#include "window.h"

namespace ascend_moe {

// Every core counts itself and writes who it is and when; behind a SyncAll it writes the same
// again, with what the next core had written before.
class CoresKernel {
 public:
    __aicore__ inline void Run(TPipe* pipe, GM_ADDR report, const CoresProbe& probe) {
        const uint32_t core = static_cast<uint32_t>(AscendC::GetBlockIdx());
        const uint32_t cores = static_cast<uint32_t>(AscendC::GetBlockNum());
        const uint64_t reports = reinterpret_cast<uint64_t>(report);
        const uint64_t own = reports + core * kCoreReportBytes;
        pipe->InitBuffer(one_, kBlockBytes);
        pipe->InitBuffer(block_, kBlockBytes);
        LocalTensor<int32_t> one = one_.Get<int32_t>();
        LocalTensor<uint32_t> block = block_.Get<uint32_t>();
        for (uint32_t i = 0; i < kBlockWords; ++i) one.SetValue(i, i == 0 ? 1 : 0);
        Fill(block, probe.mark, core, cores);
        MOE_SYNC(S_MTE3);
        // An atomic add: a core that runs twice counts twice.
        StoreAdding(At<int32_t>(own + kCoreRuns * kBlockBytes), one, kBlockWords);
        Store(At<uint32_t>(own + kCoreBefore * kBlockBytes), block, kBlockWords);
        MOE_SYNC_ALL();
        const uint64_t next = reports + (core + 1) % cores * kCoreReportBytes;
        Load(block, At<uint32_t>(next + kCoreBefore * kBlockBytes), kBlockWords);
        MOE_SYNC(MTE2_S);
        Fill(block, block.GetValue(kCoreMark), core, cores);
        MOE_SYNC(S_MTE3);
        Store(At<uint32_t>(own + kCoreBehind * kBlockBytes), block, kBlockWords);
    }

 private:
    __aicore__ inline void Fill(const LocalTensor<uint32_t>& block, uint32_t mark, uint32_t core,
                                uint32_t cores) {
        for (uint32_t i = 0; i < kBlockWords; ++i) block.SetValue(i, 0);
        block.SetValue(kCoreMark, mark);
        block.SetValue(kCoreIndex, core);
        block.SetValue(kCoreBlocks, cores);
        const int64_t ticks = AscendC::GetSystemCycle();
        block.SetValue(kCoreTicks, static_cast<uint32_t>(ticks));
        block.SetValue(kCoreTicks + 1, static_cast<uint32_t>(ticks >> 32));
    }

    Buffer one_, block_;
};

// On one core: a row into the window of the next rank, a flag behind it; then the row that the rank
// before has written here. A rank that does not come is in the error block, as of the operators.
class RowKernel {
 public:
    __aicore__ inline void Run(TPipe* pipe, GM_ADDR context, GM_ADDR row, GM_ADDR received,
                               const RowProbe& probe) {
        Window window;
        window.Init(context, probe.timeout_ticks, kLastNone);
        window.opened = false;
        if (window.core != 0) return;
        window.InitBuffers(pipe, 1);
        pipe->InitBuffer(row_, kPitchBytes);
        LocalTensor<uint8_t> data = row_.Get<uint8_t>();
        const uint32_t next = (window.rank + 1) % window.ranks;
        const uint32_t before = (window.rank + window.ranks - 1) % window.ranks;
        Load(data, At<uint8_t>(reinterpret_cast<uint64_t>(row)), kPitchBytes);
        MOE_SYNC(MTE2_MTE3);
        Store(At<uint8_t>(window.Data(next, kControlBytes)), data, kPitchBytes);
        AscendC::PipeBarrier<PIPE_MTE3>();
        window.PostToAll(MOE_FLAG("row"), kReadyOffset, kEpoch);
        window.Wait(MOE_FLAG("row"), kReadyOffset + before * kBlockBytes, 1, 1, before, kEpoch);
        if (window.failed) return;
        MOE_SYNC(MTE3_MTE2);
        Load(data, At<uint8_t>(window.Data(window.rank, kControlBytes)), kPitchBytes);
        MOE_SYNC(MTE2_MTE3);
        Store(At<uint8_t>(reinterpret_cast<uint64_t>(received)), data, kPitchBytes);
    }

 private:
    static constexpr uint32_t kEpoch = 1;

    Buffer row_;
};

}  // namespace ascend_moe
