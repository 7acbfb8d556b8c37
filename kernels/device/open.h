// Once per context: clears the control area and meets all peers that are left under the new nonce.
// docs/kernels.md section 4, point 5.
#pragma once

#include "window.h"

namespace ascend_moe {

class OpenKernel {
 public:
    __aicore__ inline void Run(TPipe* pipe, GM_ADDR context, const Meeting& meeting) {
        Window window;
        Clear(pipe, context, meeting, window);
        window.InitBuffers(pipe, kMaxRanks);
        if (window.core == 0) window.WriteState(0, 0, 0, kLastNone);
        window.PostToAll(MOE_FLAG("hello"), kHelloOffset, 0);
        Share peers = ShareOf(window.ranks, window.core, window.cores);
        window.Wait(MOE_FLAG("hello"), kHelloOffset + peers.begin * kBlockBytes,
                    peers.end - peers.begin, 1, peers.begin, 0);
    }

    // The control area of this rank, by all its cores.
    __aicore__ inline static void Clear(TPipe* pipe, GM_ADDR context, const Meeting& meeting,
                                        Window& window) {
        window.Init(context, meeting.timeout_ticks, kLastNone);
        Buffer zeros;
        pipe->InitBuffer(zeros, kClearBytes);
        LocalTensor<uint32_t> zero = zeros.Get<uint32_t>();
        AscendC::Duplicate(zero, 0u, kClearBytes / 4);
        MOE_SYNC(V_MTE3);
        Share share = ShareOf(kControlBytes / kClearBytes, window.core, window.cores);
        for (uint32_t i = share.begin; i < share.end; ++i) {
            uint64_t offset = static_cast<uint64_t>(i) * kClearBytes;
            // A peer may have said hello already.
            if (offset < kHelloOffset || offset >= kReadyOffset)
                Store(At<uint32_t>(window.Control(window.rank, offset)), zero, kClearBytes / 4);
        }
        MOE_SYNC_ALL();
    }

 private:
    static constexpr uint32_t kClearBytes = 4096;
};

}  // namespace ascend_moe
