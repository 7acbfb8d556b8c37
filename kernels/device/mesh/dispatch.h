// Dispatch, full mesh over several servers: stage, publish and post, wait for all, pull.
// docs/kernels-mesh.md.
#pragma once

#include "../receive.h"
#include "places.h"
#include "publish.h"

namespace ascend_moe {

// Where Receiver finds rows: in the stages of the mates, and in the own window what a card has
// brought.
class MeshRows {
 public:
    static constexpr bool kTriples = false;  // the source's table of places is the handle

    __aicore__ inline MeshRows(const Window& window, const MeshPeers& peers, const Parameters& p,
                               const DispatchTensors& t)
        : window_(window),
          peers_(peers),
          p_(p),
          staged_(window, p, t, peers.area, 0),
          lists_(peers.area + MeshListsOffset(p, peers.PerServer(), window.ranks)) {}

    __aicore__ inline uint64_t Row(uint32_t source, uint32_t pair, uint32_t in_list) const {
        if (peers_.IsMate(source)) return staged_.Row(source, pair, in_list);
        const uint64_t rows =
            MeshRowsOffset(p_, peers_.PerServer(), peers_.ServerOf(window_.rank), source);
        return window_.Data(window_.rank, peers_.area + rows) +
               static_cast<uint64_t>(in_list) * RowBytes(p_);
    }
    __aicore__ inline uint64_t List(uint32_t source) const {
        return window_.Data(window_.rank, lists_ + source * ListPitch(p_));
    }
    // In the list, behind the pairs.
    __aicore__ inline uint64_t Scale(uint32_t source, uint32_t, uint32_t in_list) const {
        return List(source) + 4ull * (ListRows(p_) + in_list);
    }

 private:
    const Window& window_;
    const MeshPeers& peers_;
    const Parameters& p_;
    StagedRows staged_;
    uint64_t lists_;
};

class MeshDispatchKernel {
 public:
    __aicore__ inline void Run(TPipe* pipe, GM_ADDR context, const DispatchTensors& tensors,
                               const Parameters& p) {
        Window window;
        window.Init(context, p.timeout_ticks, kLastDispatch);
        window.InitBuffers(pipe, Window::kStateBlocks);
        window.ReadState();
        const MeshPeers peers(context, window, p, kLastDispatch);
        uint32_t active = CountActive(pipe, p, reinterpret_cast<GM_ADDR>(tensors.mask));

        const ScaleTable scales{Packed(p) ? 0 : tensors.workspace, ScalePitchWords(p)};
        const Share tokens = StagedShare(active, scales, window.core, window.cores, 0);
        if (!window.failed) Stager(pipe, window, p, tensors, peers.area, scales, tokens).Run();
        MOE_SYNC_ALL();
        pipe->Reset();

        window.InitBuffers(pipe, 1);
        if (!window.failed) MeshPublisher(pipe, window, peers, p, tensors, active).Run();
        AscendC::PipeBarrier<PIPE_ALL>();
        pipe->Reset();
        if (window.core == window.cores - 1) PlaceTable(pipe, p, tensors, active).Run();
        AscendC::PipeBarrier<PIPE_ALL>();
        pipe->Reset();

        window.InitBuffers(pipe, peers.layout.blocks);
        peers.WaitForShare(pipe, p, tensors.performance_info);
        AscendC::SyncAll<true>();  // nothing to drain since the last barrier
        Receiver<MeshRows>(pipe, window, p, tensors, MeshRows(window, peers, p, tensors),
                           window.epoch)
            .Run();
        if (window.core == 0 && !window.failed)
            window.WriteState(window.dispatch_epoch + 1, window.combine_epoch, window.tp_epoch,
                              kLastDispatch);
    }
};

}  // namespace ascend_moe
