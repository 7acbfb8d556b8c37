// TP: rows from one rank of a pair to the other, both ways at once, through a ring per core. The
// pair launches with the same number of cores; core c of one talks to core c of the other.
//
//   sender                                     receiver
//                     <.. consumed(epoch, 0)   has begun this launch, so all its cores have left
//                                              the last one: its window is free
//   rows -> ring      ..>
//   waits for the copies
//   produced(epoch,n) ..>                      takes rows
//                     <.. consumed(epoch, n)   after the loads have completed; their places may be
//                                              used again
#pragma once

#include "window.h"

namespace ascend_moe {

class TpLane {
 public:
    __aicore__ inline TpLane(TPipe* pipe, Window& window, uint32_t row_bytes)
        : window_(window), epoch_(window.tp_epoch + 1), pitch_(TpSlotPitch(row_bytes)) {
        uint64_t ring = TpRingBytes(window.TpBytes(), window.cores);
        depth_ = static_cast<uint32_t>(ring / pitch_);
        ring_offset_ = kTpRingsOffset + window.core * ring;
        pipe->InitBuffer(post_, kBlockBytes);
        pipe->InitBuffer(poll_, kBlockBytes);
    }

    // Tells the peer that this rank has begun the launch, and waits until the peer has. What core 0
    // says counts for all, and is there however many cores the peer has. It may even be of the
    // peer's next launch, if this core had nothing to exchange with it.
    __aicore__ inline void Meet(FlagName what) {
        Post(MOE_FLAG("TP beginning"), kTpConsumedOffset + window_.core * kBlockBytes, 0);
        if (WaitDropped(what)) return;
        while (!window_.failed) {
            LocalTensor<uint32_t> block = Read(kTpConsumedOffset);
            uint32_t epoch = block.GetValue(1), cores = block.GetValue(3);
            if (block.GetValue(0) != window_.tp_nonce || static_cast<int32_t>(epoch - epoch_) < 0) {
                Pause();
            } else {
                if (epoch == epoch_ && cores != window_.cores)
                    window_.Fail(kOtherCores, 1 - window_.tp_rank, cores);
                return;
            }
        }
    }

    // A numbered block into the peer's window, and the wait for the peer's. First every copy so far
    // is waited for: rows are there before they are announced, and rows taken out have been loaded,
    // because each load was followed by a copy that needed it.
    __aicore__ inline void Post(FlagName what, uint64_t offset, uint32_t number) {
        if (PostDropped(what)) return;
        LocalTensor<uint32_t> block = post_.Get<uint32_t>();
        MOE_SYNC(MTE3_S);
        for (uint32_t i = 0; i < kBlockWords; ++i) block.SetValue(i, 0);
        block.SetValue(0, window_.tp_nonce);
        block.SetValue(1, epoch_);
        block.SetValue(2, number);
        block.SetValue(3, window_.cores);
        MOE_SYNC(S_MTE3);
        Store(At<uint32_t>(window_.OfTp(1 - window_.tp_rank, offset)), block, kBlockWords);
    }
    __aicore__ inline uint32_t WaitFor(FlagName what, uint64_t offset) {
        uint32_t number = 0;
        while (!window_.failed && !ReadNumber(offset, number) && !WaitDropped(what)) Pause();
        return number;
    }

    // After Meet: sends rows `out` and receives rows `in`, numbered by the side: side.Send(row,
    // address) fills a place of the peer's ring, side.Receive(row, address) takes one out of ours.
    template <typename Side>
    __aicore__ inline void Exchange(Side& side, Share out, Share in) {
        uint32_t to_send = out.end - out.begin, to_receive = in.end - in.begin, sent = 0,
                 received = 0;
        while (!window_.failed && (sent < to_send || received < to_receive)) {
            uint32_t consumed = 0, produced = 0, before = sent + received;
            ReadNumber(kTpConsumedOffset + window_.core * kBlockBytes, consumed);
            ReadNumber(kTpProducedOffset + window_.core * kBlockBytes, produced);
            if (WaitDropped(MOE_FLAG("TP places"))) consumed = to_send;
            if (WaitDropped(MOE_FLAG("TP rows"))) produced = to_receive;
            if (sent < to_send && sent < consumed + depth_) {
                for (; sent < to_send && sent < consumed + depth_; ++sent) {
                    side.Send(out.begin + sent, window_.OfTp(1 - window_.tp_rank, Place(sent)));
                }
                Post(MOE_FLAG("TP rows"), kTpProducedOffset + window_.core * kBlockBytes, sent);
            }
            if (received < produced) {
                for (; received < produced; ++received)
                    side.Receive(in.begin + received,
                                 window_.OfTp(window_.tp_rank, Place(received)));
                Post(MOE_FLAG("TP places"), kTpConsumedOffset + window_.core * kBlockBytes,
                     received);
            }
            if (sent + received == before) Pause();
        }
    }

 private:
    __aicore__ inline uint64_t Place(uint32_t number) const {
        return ring_offset_ + number % depth_ * pitch_;
    }
    __aicore__ inline void Pause() {
        window_.Pause(MOE_FLAG("TP rank"), 1 - window_.tp_rank, epoch_);
    }

    __aicore__ inline LocalTensor<uint32_t> Read(uint64_t offset) {
        LocalTensor<uint32_t> block = poll_.Get<uint32_t>();
        MOE_SYNC(S_MTE2);
        {
            PollScope poll;
            Load(block, At<uint32_t>(window_.OfTp(window_.tp_rank, offset)), kBlockWords);
        }
        MOE_SYNC(MTE2_S);
        return block;
    }
    // The number in a block of the own window if it is of this launch.
    __aicore__ inline bool ReadNumber(uint64_t offset, uint32_t& number) {
        LocalTensor<uint32_t> block = Read(offset);
        if (block.GetValue(0) != window_.tp_nonce || block.GetValue(1) != epoch_) return false;
        number = block.GetValue(2);
        return true;
    }

    Window& window_;
    uint32_t epoch_;
    uint64_t pitch_, ring_offset_;
    uint32_t depth_;
    Buffer post_, poll_;
};

}  // namespace ascend_moe
