// Combine, full mesh over several servers: rows back to their sources, wait for all, sum.
// docs/kernels-mesh.md.
#pragma once

#include "../reduce.h"
#include "return_rows.h"

namespace ascend_moe {

// Where Reducer finds a row that has come back: at its place among those of the rank it came from.
class ReturnedPlaces {
 public:
    __aicore__ inline ReturnedPlaces(TPipe* pipe, const Window& window, const MeshPeers& peers,
                                     const Parameters& p, const CombineTensors& t)
        : p_(p), t_(t), returned_(window.Data(window.rank, peers.area)) {
        pipe->InitBuffer(places_, 4 * p.topk * kTokensAtOnce);
    }

    __aicore__ inline bool OwnTravel() const { return true; }
    // At most kTokensAtOnce.
    __aicore__ inline void LoadTokens(uint32_t first, uint32_t count) {
        first_ = first;
        Load(places_.Get<uint32_t>(), At<uint32_t>(t_.assist_info + 4ull * first * p_.topk),
             count * p_.topk);
    }
    __aicore__ inline uint64_t Row(uint32_t from, uint32_t token, uint32_t slot) {
        uint32_t place = places_.Get<uint32_t>().GetValue((token - first_) * p_.topk + slot);
        if (place >= ListRows(p_)) place = 0;  // not this call's handle; stay inside the window
        return returned_ + MeshReturnedOffset(p_, from) + 2ull * place * p_.hidden;
    }

 private:
    const Parameters& p_;
    const CombineTensors& t_;
    uint64_t returned_;
    uint32_t first_ = 0;
    Buffer places_;
};

class MeshCombineKernel {
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
                                  const Parameters& p) {
        Window window;
        window.Init(context, p.timeout_ticks, kLastCombine);
        window.InitBuffers(pipe, Window::kStateBlocks);
        window.ReadState();
        const MeshPeers peers(context, window, p, kLastCombine);
        uint32_t active = CountActive(pipe, p, reinterpret_cast<GM_ADDR>(tensors.mask));

        MeshReturner returner(pipe, window, peers, p, tensors);
        if (!window.failed) returner.Run();
        MOE_SYNC_ALL();
        if (!window.failed) returner.Announce();
        AscendC::PipeBarrier<PIPE_ALL>();
        pipe->Reset();

        window.InitBuffers(pipe, peers.layout.blocks);
        peers.WaitForShare(pipe, p, tensors.performance_info);
        AscendC::SyncAll<true>();  // nothing to drain since the last barrier
        window.LoadFailures();
        MOE_SYNC(MTE2_S);
        window.ShareFailure();  // or a core would sum what another has not seen come back
        if (!window.failed) {
            ReturnedPlaces places(pipe, window, peers, p, tensors);
            Reducer<X, ReturnedPlaces> reducer(pipe, window, p, tensors, places, active);
            reducer.Prepare();
            reducer.Run();
        }
        if (window.core == 0 && !window.failed)
            window.WriteState(window.dispatch_epoch, window.combine_epoch + 1, window.tp_epoch,
                              kLastCombine);
    }
};

}  // namespace ascend_moe
