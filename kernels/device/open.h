// Once per context: clears the control area and meets all peers under the new nonce.
// docs/kernels.md section 4, point 5.
#pragma once

#include "window.h"

namespace ascend_moe {

// All but hello: a peer may have said it already. The caller drains.
__aicore__ inline void ClearControl(TPipe* pipe, const Window& window) {
    constexpr uint32_t kClearBytes = 4096;
    Buffer zeros;
    pipe->InitBuffer(zeros, kClearBytes);
    LocalTensor<uint32_t> zero = zeros.Get<uint32_t>();
    AscendC::Duplicate(zero, 0u, kClearBytes / 4);
    MOE_SYNC(V_MTE3);
    Share share = ShareOf(kControlBytes / kClearBytes, window.core, window.cores);
    for (uint32_t i = share.begin; i < share.end; ++i) {
        uint64_t offset = static_cast<uint64_t>(i) * kClearBytes;
        if (offset < kHelloOffset || offset >= kReadyOffset)
            Store(At<uint32_t>(window.Control(window.rank, offset)), zero, kClearBytes / 4);
    }
}

class OpenKernel {
 public:
    __aicore__ inline void Run(TPipe* pipe, GM_ADDR context, const Meeting& meeting) {
        Window window;
        window.Init(context, meeting.timeout_ticks, kLastNone);
        window.InitBuffers(pipe, kMaxRanks);
        ClearControl(pipe, window);
        MOE_SYNC_ALL();
        if (window.core == 0) window.WriteState(0, 0, 0, kLastNone);
        window.PostToAll(MOE_FLAG("hello"), kHelloOffset, 0);
        Share peers = ShareOf(window.ranks, window.core, window.cores);
        window.Wait(MOE_FLAG("hello"), kHelloOffset + peers.begin * kBlockBytes,
                    peers.end - peers.begin, 1, peers.begin, 0);
    }
};

}  // namespace ascend_moe
