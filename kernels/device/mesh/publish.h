// Dispatch, the source's messages: to every mate its list and the counts, as in one server; to
// every other rank also its rows, by card.
#pragma once

#include "peers.h"

namespace ascend_moe {

class MeshPublisher : public Publisher {
 public:
    __aicore__ inline MeshPublisher(TPipe* pipe, Window& window, const MeshPeers& peers,
                                    const Parameters& p, const DispatchTensors& t, uint32_t active)
        : Publisher(pipe, window, p, t, window.epoch, active, 1),
          peers_(peers),
          lists_(peers.area + MeshListsOffset(p, peers.PerServer(), window.ranks)) {
        post_.InitBuffers(pipe);
        pipe->InitBuffer(copied_, 2, RowBytes(p));
        if (HasScales(p))
            pipe->InitBuffer(scales_, 4 * (active == 0 ? 1 : active) * ScalePitchWords(p));
    }

    __aicore__ inline void Run() {
        if (window_.core >= window_.ranks) return;
        NumberPairs();
        if (HasScales(p_) && active_ > 0) LoadScales();
        for (uint32_t i = window_.core; i < window_.ranks && !window_.failed; i += window_.cores) {
            uint32_t peer = (window_.rank + 1 + i) % window_.ranks;
            MOE_SYNC(MTE3_S);  // one buffer for the counts of all
            uint32_t rows = Prepare(peer);
            peers_.Sign(Counts());
            MOE_SYNC(S_MTE3);
            if (peers_.IsMate(peer)) {
                if (rows > 0)
                    StoreList(window_.Data(peer, lists_ + window_.rank * ListPitch(p_)), rows);
                AscendC::PipeBarrier<PIPE_MTE3>();  // the list before the counts that announce it
                peers_.AnnounceToMate(peer, Counts());
            } else {
                Send(peer, rows);
            }
        }
    }

 private:
    // Prepare has waited for a later load when they are used.
    __aicore__ inline void LoadScales() {
        Load(scales_.Get<float>(), At<float>(Packed(p_) ? t_.scales : t_.workspace),
             active_ * ScalePitchWords(p_));
    }

    // Pairs, and behind them their scales.
    __aicore__ inline void StoreList(uint64_t list, uint32_t rows) {
        StorePairs(list, rows);
        if (!HasScales(p_)) return;
        LocalTensor<int32_t> sorted = ids_.Get<int32_t>();
        // The scale of pair (token, slot) is word token * pitch + slot of the table, or + 0 if a
        // token is staged once.
        LocalTensor<int32_t> tokens = chosen_pairs_.Get<int32_t>(),
                             offsets = chosen_ids_.Get<int32_t>();
        int32_t pitch = 4 * ScalePitchWords(p_);
        MOE_SYNC(S_V);
        AscendC::ShiftRight(tokens, sorted, static_cast<int32_t>(kSlotBits), rows);
        MOE_VBARRIER();
        if (p_.smooth) {
            AscendC::Muls(offsets, sorted, 4, rows);
            AscendC::Muls(tokens, tokens, pitch - (4 << kSlotBits), rows);
            MOE_VBARRIER();
            AscendC::Add(offsets, offsets, tokens, rows);
        } else {
            AscendC::Muls(offsets, tokens, pitch, rows);
        }
        MOE_VBARRIER();
        LocalTensor<float> scales = chosen_pairs_.Get<float>();
        AscendC::Gather(scales, scales_.Get<float>(), offsets.ReinterpretCast<uint32_t>(), 0, rows);
        MOE_SYNC(V_MTE3);
        Store(At<float>(list + 4ull * ListRows(p_)), scales, rows);
    }

    __aicore__ inline void Send(uint32_t peer, uint32_t rows) {
        QueuePair pair = peers_.Queue(post_, peer);
        if (rows > 0) {
            const uint64_t from = peers_.area + MeshRowsOffset(p_, peers_.PerServer(),
                                                               peers_.ServerOf(window_.rank), peer),
                           to = peers_.area + MeshRowsOffset(p_, peers_.PerServer(),
                                                             peers_.ServerOf(peer), window_.rank),
                           list = lists_ + peer * ListPitch(p_),
                           own_list = lists_ + window_.rank * ListPitch(p_);
            CopyRows(peers_.Output(from), rows);
            StoreList(peers_.Output(list), rows);
            post_.Post(window_, pair, from, to, rows * RowBytes(p_));
            post_.Post(window_, pair, list, own_list, 4 * rows);
            if (HasScales(p_))
                post_.Post(window_, pair, list + 4 * ListRows(p_), own_list + 4 * ListRows(p_),
                           4 * rows);
        }
        peers_.Announce(post_, pair, Counts());
    }

    // Out of the stage, in the order of the list.
    __aicore__ inline void CopyRows(uint64_t to, uint32_t rows) {
        LocalTensor<uint32_t> pairs = ids_.Get<uint32_t>();
        const uint64_t stage = window_.Data(window_.rank, peers_.area);
        for (uint32_t i = 0; i < rows; ++i) {
            LocalTensor<uint8_t> row = copied_.AllocTensor<uint8_t>();
            Load(row, At<uint8_t>(stage + StagedAt(p_, pairs.GetValue(i))), RowBytes(p_));
            copied_.EnQue(row);
            row = copied_.DeQue<uint8_t>();
            Store(At<uint8_t>(to + static_cast<uint64_t>(i) * RowBytes(p_)), row, RowBytes(p_));
            copied_.FreeTensor(row);
        }
    }

    const MeshPeers& peers_;
    uint64_t lists_;
    Buffer scales_;
    RdmaPost post_;
    AscendC::TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> copied_;
};

}  // namespace ascend_moe
