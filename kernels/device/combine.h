// Combine: return the experts' rows, tell everybody, sum what came back. docs/kernels.md sections 3
// and 4.
#pragma once

#include "elastic.h"
#include "reduce.h"
#include "tp_return.h"

namespace ascend_moe {

class CombineKernel {
 public:
    __aicore__ inline void Run(TPipe* pipe, GM_ADDR context, const CombineTensors& tensors,
                               const Parameters& p) {
        if (p.element == Element::kBfloat16) {
            RunFor<bfloat16_t>(pipe, context, tensors, p);
        } else {
            RunFor<half>(pipe, context, tensors, p);
        }
    }

 private:
    template <typename X>
    __aicore__ inline void RunFor(TPipe* pipe, GM_ADDR context, const CombineTensors& tensors,
                                  const Parameters& given) {
        Window window;
        window.Init(context, given.timeout_ticks, kLastCombine);
        window.InitBuffers(pipe, Window::kStateBlocks);
        window.ReadState();
        ElasticCheck().Run(pipe, window, tensors.elastic_info);
        const Parameters p = OfThoseLeft(window, given);
        uint32_t epoch = window.epoch;
        uint32_t active = CountActive(pipe, p, reinterpret_cast<GM_ADDR>(tensors.mask));

        WaitsOfCores waits(window, p, tensors.workspace);
        if (Measured(p)) {
            if (window.core == 0) waits.Clear(pipe);
            // The zeros first: few schedules show it, for a core has to wait before it adds.
            MOE_SYNC_ALL();
        }
        if (window.last_op == kLastCombine)
            WaitForRelease(pipe, window, p, tensors.performance_info);
        // With TP the next step may give up, and a core that only hears of it would not greet the
        // other rank: first all have looked for failures.
        if (p.tp) AscendC::SyncAll<true>();
        if (!window.failed) {
            if (p.tp) {
                TpReturner<X>(pipe, window, p, tensors).Run();
            } else {
                RowReturner<X>(pipe, window, p, tensors).Run();
            }
        }
        AscendC::PipeBarrier<PIPE_ALL>();
        if (p.tp) AscendC::SyncAll<true>();
        pipe->Reset();
        window.InitBuffers(pipe, window.cores);
        if (p.tp) {  // has waited
            window.LoadFailures();
            MOE_SYNC(MTE2_S);
            window.ShareFailure();
        }
        if (!window.failed) Sum<X>(pipe, window, p, tensors, active, waits);
        if (Measured(p)) {
            MOE_SYNC_ALL();
            pipe->Reset();
            window.InitBuffers(pipe, 1);
            if (window.core == 0) waits.Tell(pipe, tensors.performance_info);
        }
        if (window.core == 0 && !window.failed)
            window.WriteState(window.dispatch_epoch, epoch, window.tp_epoch + p.tp, kLastCombine);
    }

    // Cores meet over memory, which takes less time than a SyncAll: each says that what it had to
    // return and to note is there, and goes on when all have. With TP they have met.
    template <typename X>
    __aicore__ inline void Sum(TPipe* pipe, Window& window, const Parameters& p,
                               const CombineTensors& tensors, uint32_t active,
                               const WaitsOfCores& waits) {
        ReturnedSlots returned(pipe, window, p, window.epoch);
        Reducer<X, ReturnedSlots> reducer(pipe, window, p, tensors, returned, active);
        if (!p.tp) window.Arrive(MOE_FLAG("returned"), window.epoch);
        reducer.Prepare();
        const uint64_t peer = window.PeerToPost();
        if (!p.tp) window.WaitForCores(MOE_FLAG("returned"), window.epoch);
        window.PostToAll(MOE_FLAG("done"), kDoneOffset, window.epoch, MarkOf(p), peer);
        reducer.Run();
        returned.MergeWaitsInto(waits);
    }

    // Nothing since the last combine tells that its rows have been read everywhere.
    __aicore__ inline void WaitForRelease(TPipe* pipe, Window& window, const Parameters& p,
                                          uint64_t performance_info) {
        Share peers = ShareOf(window.ranks, window.core, window.cores);
        window.InitBuffers(pipe, peers.end - peers.begin + 1);
        if (!window.failed) window.PostToAll(MOE_FLAG("ready"), kReadyOffset, window.epoch);
        Waited waited(window, Measured(p));
        waited.Watch(pipe, MOE_FLAG("readiness"), kReadyOffset, 1, peers, window.epoch);
        waited.UntilAll();
        waited.MergeInto(performance_info, p.waits);
        window.Wait(MOE_FLAG("readiness"), kReadyOffset + peers.begin * kBlockBytes,
                    peers.end - peers.begin, 1, peers.begin, window.epoch);
        MOE_SYNC_ALL();
        window.LoadFailures();
        MOE_SYNC(MTE2_S);
        window.ShareFailure();  // or a core would overwrite what another has not seen released
        pipe->Reset();
        window.InitBuffers(pipe, 1);
    }
};

}  // namespace ascend_moe
