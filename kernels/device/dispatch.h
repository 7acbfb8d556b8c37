// Dispatch: stage own tokens, publish the index, wait for all counts, pull. docs/kernels.md
// section 3.
#pragma once

#include "elastic.h"
#include "receive.h"
#include "tp_gather.h"

namespace ascend_moe {

class DispatchKernel {
 public:
    __aicore__ inline void Run(TPipe* pipe, GM_ADDR context, const DispatchTensors& tensors,
                               const Parameters& given) {
        Window window;
        window.Init(context, given.timeout_ticks, kLastDispatch);
        window.InitBuffers(pipe, Window::kStateBlocks);
        window.ReadState();
        ElasticCheck().Run(pipe, window, tensors.elastic_info);
        const Parameters p = OfThoseLeft(window, given);
        uint32_t epoch = window.epoch;
        uint64_t area = DispatchAreaOffset(window.bytes, epoch & 1);
        uint64_t lists = area + DispatchAreaBytes(window.bytes) - window.ranks * ListPitch(p);
        uint32_t active = CountActive(pipe, p, reinterpret_cast<GM_ADDR>(tensors.mask));

        if (!window.failed) Stager(pipe, window, p, tensors, area, active).Run();
        MOE_SYNC_ALL();
        pipe->Reset();

        if (!window.failed) Publisher(pipe, window, p, tensors, lists, epoch, active).Run();
        AscendC::PipeBarrier<PIPE_ALL>();
        pipe->Reset();

        Receiver receiver(pipe, window, p, tensors, area, lists, epoch);
        window.InitBuffers(pipe, CeilDiv(window.ranks, window.cores) * CountsLayout(p).blocks);
        receiver.WaitForCounts();
        AscendC::SyncAll<true>();  // nothing to drain since the last barrier
        receiver.Run();
        if (p.tp && !window.failed) {
            MOE_SYNC_ALL();
            pipe->Reset();
            window.InitBuffers(pipe, 1);
            TpGather(pipe, window, p, tensors).Run();
        }
        if (window.core == 0 && !window.failed)
            window.WriteState(epoch, window.combine_epoch, window.tp_epoch + p.tp, kLastDispatch);
    }
};

}  // namespace ascend_moe
