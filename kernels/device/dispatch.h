// Dispatch: stage own tokens, announce them, wait for all counts, pull. docs/kernels.md section 3.
#pragma once

#include "announce.h"
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
        // By the size of the whole group, which the host has seen to.
        uint64_t index =
            area + DispatchAreaBytes(window.bytes) - DispatchIndexBytes(p, window.whole);
        const StagedRows staged(window, p, tensors, area, index);
        uint32_t active = CountActive(pipe, p, reinterpret_cast<GM_ADDR>(tensors.mask));

        const ScaleTable scales = staged.Scales(window.rank);
        // Lists are made by the last cores.
        const uint32_t lists = window.ranks < window.cores ? window.ranks : window.cores;
        const Share tokens =
            StagedShare(active, scales, window.core, window.cores, window.cores - lists);
        if (!window.failed) Stager(pipe, window, p, tensors, area, scales, tokens).Run();
        AscendC::PipeBarrier<PIPE_ALL>();  // staged rows before the SyncAll
        pipe->Reset();

        Receiver<StagedRows> receiver(pipe, window, p, tensors, staged, epoch);
        // The wait begins while what is announced here is still on its way: in UB of its own.
        window.InitBuffers(pipe, receiver.Polled());
        {
            RowAnnouncer announcer(pipe, window, p, tensors, epoch, active,
                                   window.cores - 1 - window.core, window.cores);
            if (!window.failed) announcer.SendLists(index);
            AscendC::SyncAll<true>();
            if (!window.failed) announcer.SendCounts();
        }
        receiver.Wait();
        AscendC::PipeBarrier<PIPE_ALL>();
        pipe->Reset();
        window.InitBuffers(pipe, 1);
        receiver.Run();
        if (p.tp) {
            // Rows are complete before the next SyncAll in any case. This one brings the failures
            // of all cores, which only few schedules of a late rank show.
            MOE_SYNC_ALL();
            pipe->Reset();
            window.InitBuffers(pipe, 1);
            window.LoadFailures();
            MOE_SYNC(MTE2_S);
            window.ShareFailure();  // all cores pass on rows, or none
            // The next step may give up, and a core that only hears of it would not greet the other
            // rank: first all have looked for failures.
            AscendC::SyncAll<true>();
            if (!window.failed) TpGather(pipe, window, p, tensors).Run();
        }
        if (window.core == 0 && !window.failed)
            window.WriteState(epoch, window.combine_epoch, window.tp_epoch + p.tp, kLastDispatch);
    }
};

}  // namespace ascend_moe
