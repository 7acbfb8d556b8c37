// A row of messages to a rank of another server and back, many times: what rdma_post.h and a
// network card have to do together, and nothing else. The first kernel to run where two servers are
// new.
//
// The rank with the smaller number leads: in every turn it adds one to all it got back, posts it as
// `burst` messages, and a tag. The other posts back what it got, and a tag. A message that is lost,
// late or old in one turn is wrong in all turns behind it, so only the last one has to be looked
// at: `received` is `start` plus the number of turns. Every core has a queue pair and a part of the
// windows of its own. Rows are a multiple of kPitchBytes apart, here and there.
//
// Each side posts only when it has seen the other's tag, so its sources have been delivered, and
// what it got has been read by itself: nothing needs two copies.
#pragma once

#include "rdma_post.h"

namespace ascend_moe {

class PingPongKernel {
 public:
    __aicore__ inline void Run(TPipe* pipe, GM_ADDR context, GM_ADDR tables, GM_ADDR start,
                               GM_ADDR received, const PingPong& probe) {
        window_.Init(context, probe.timeout_ticks, kLastNone);
        window_.opened = false;
        window_.ranks_per_server = 1;  // an error record says over which link the peer is
        window_.InitBuffers(pipe, 1);
        post_.InitBuffers(pipe);
        pipe->InitBuffer(row_, AlignUp(probe.bytes, kBlockBytes));
        burst_ = probe.burst;
        words_ = probe.bytes / 4;
        pitch_ = AlignUp(probe.bytes, kPitchBytes);
        area_ = kControlBytes + window_.core * static_cast<uint64_t>(kPitchBytes + burst_ * pitch_);
        QueuePair pair = post_.Open(reinterpret_cast<uint64_t>(tables), probe.peer, window_.core);

        const bool leads = window_.rank < probe.peer;
        const uint64_t got = window_.Data(window_.rank, area_);
        const uint64_t part = window_.core * static_cast<uint64_t>(burst_) * pitch_;
        const uint32_t last = probe.first + probe.turns - 1;
        for (uint32_t turn = probe.first; turn <= last; ++turn) {
            if (leads && turn == probe.first) {
                Send(pair, reinterpret_cast<uint64_t>(start) + part, 1, turn);
                continue;
            }
            window_.epoch = leads ? turn - 1 : turn;  // an error record says what did not come
            post_.WaitTag(MOE_FLAG("turn"), window_, got, probe.peer, window_.epoch);
            Send(pair, got + kPitchBytes, leads ? 1 : 0, turn);
        }
        if (!leads) return;
        window_.epoch = last;
        post_.WaitTag(MOE_FLAG("last turn"), window_, got, probe.peer, last);
        for (uint32_t i = 0; i < burst_ && !window_.failed; ++i) {
            LocalTensor<int32_t> row = row_.Get<int32_t>();
            Load(row, At<int32_t>(got + kPitchBytes + i * pitch_), words_);
            MOE_SYNC(MTE2_MTE3);
            Store(At<int32_t>(reinterpret_cast<uint64_t>(received) + part + i * pitch_), row,
                  words_);
            MOE_SYNC(MTE3_MTE2);
        }
    }

 private:
    // All messages of a turn, and the tag.
    __aicore__ inline void Send(QueuePair& pair, uint64_t rows, int32_t add, uint32_t turn) {
        LocalTensor<int32_t> row = row_.Get<int32_t>();
        for (uint32_t i = 0; i < burst_ && !window_.failed; ++i) {
            Load(row, At<int32_t>(rows + i * pitch_), words_);
            MOE_SYNC(MTE2_V);
            AscendC::Adds(row, row, add, words_);
            MOE_SYNC(V_MTE3);
            const uint64_t place = area_ + kPitchBytes + i * pitch_;
            Store(At<int32_t>(pair.output + place), row, words_);
            // Its barrier is also behind the store: the row may be loaded again.
            post_.Post(window_, pair, place, place, words_ * 4);
        }
        post_.PostTag(MOE_FLAG("tag"), window_, pair, area_, area_, turn);
    }

    Window window_;
    RdmaPost post_;
    uint32_t burst_, words_, pitch_;
    uint64_t area_;
    Buffer row_;
};

}  // namespace ascend_moe
