// Dispatch over several servers: count, stage, send, relay, pull. docs/kernels-hierarchy.md.
#pragma once

#include "../routing.h"
#include "index.h"
#include "receive.h"

namespace ascend_moe {

class HierarchyDispatchKernel {
 public:
    __aicore__ inline void Run(TPipe* pipe, GM_ADDR context,
                               const HierarchyDispatchTensors& tensors, const Parameters& p) {
        Window window;
        Servers servers;
        window.Init(context, p.timeout_ticks, kLastDispatch);
        servers.Init(context, window);
        window.InitBuffers(pipe, Window::kStateBlocks);
        window.ReadState();
        const uint32_t epoch = window.epoch;
        uint32_t active = CountActive(pipe, p, reinterpret_cast<GM_ADDR>(tensors.mask));
        ServerStager stager(pipe, window, servers, p, tensors, epoch, active);
        if (!window.failed) stager.Count();
        MOE_SYNC_ALL();
        if (!window.failed) stager.Run();
        MOE_SYNC_ALL();
        pipe->Reset();

        window.InitBuffers(pipe, 1);
        if (!window.failed) ServerSender(pipe, window, servers, p, tensors, epoch, active).Run();
        pipe->Reset();  // what was sent is drained

        window.InitBuffers(pipe, 1);
        Relay relay(pipe, window, servers, p, tensors, epoch);
        relay.Receive();
        MOE_SYNC_ALL();
        window.LoadFailures();
        MOE_SYNC(MTE2_S);
        window.ShareFailure();  // or counts would announce what another core has not seen
        if (!window.failed) relay.Forward();
        pipe->Reset();  // what was forwarded is drained

        ServerReceiver receiver(pipe, window, servers, p, tensors, epoch);
        window.InitBuffers(pipe, CountsLayout(p).blocks);
        receiver.WaitForCounts();
        AscendC::SyncAll<true>();  // nothing to drain
        receiver.Run();
        if (window.core == 0 && !window.failed)
            window.WriteState(epoch, window.combine_epoch, window.tp_epoch, kLastDispatch);
    }
};

}  // namespace ascend_moe
