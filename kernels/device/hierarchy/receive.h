// Dispatch, the experts' side: positions from the counts, rows from the relays into expand_x.
#pragma once

#include "../slot_walk.h"
#include "relay.h"

namespace ascend_moe {

class ServerReceiver {
 public:
    __aicore__ inline ServerReceiver(TPipe* pipe, Window& window, const Servers& servers,
                                     const Parameters& p, const HierarchyDispatchTensors& t,
                                     uint32_t epoch)
        : pipe_(pipe),
          window_(window),
          servers_(servers),
          topology_(servers.topology),
          p_(p),
          t_(t),
          layout_(p),
          epoch_(epoch),
          half_(InputHalf(window.bytes, epoch & 1)) {}

    // The cores share the waiting; who does not come is the relay, not the source behind it.
    __aicore__ inline void WaitForCounts() {
        Share sources = ShareOf(window_.ranks, window_.core, window_.cores);
        MOE_SYNC(S_MTE2);  // what the relay has read lay where the polls go
        Waited waited(window_, Servers::Measured(window_, p_));
        waited.Watch(pipe_, MOE_FLAG("counts"), layout_.Offset(epoch_ & 1, 0), layout_.blocks,
                     Share{0, window_.ranks}, epoch_);
        for (uint32_t source = 0; source < window_.ranks; ++source)
            waited.Until(source, servers_.RelayOf(source));
        waited.MergeInto(t_.performance_info, p_.waits);
        for (uint32_t i = sources.begin; i < sources.end && !window_.failed; ++i) {
            uint32_t source =
                (topology_.server * topology_.per_server + i) % window_.ranks;  // own server first
            LocalTensor<uint32_t> blocks =
                window_.Wait(MOE_FLAG("counts"), layout_.Offset(epoch_ & 1, source), layout_.blocks,
                             layout_.blocks, servers_.RelayOf(source), epoch_);
            if (!window_.failed)
                window_.Compare(blocks, CountsLayout::Word(CountsLayout::kMark), MarkOf(p_),
                                servers_.RelayOf(source));
            MOE_SYNC(S_MTE2);
        }
    }

    // After all cores have waited.
    __aicore__ inline void Run() {
        Buffer block_buffer, taken_buffer;
        uint32_t words = window_.ranks * layout_.blocks * kBlockWords;
        pipe_->InitBuffer(block_buffer, 4 * words);
        pipe_->InitBuffer(taken_buffer, SlotWalk::TakenBytes(window_.ranks));
        LocalTensor<uint32_t> blocks = block_buffer.Get<uint32_t>();
        window_.LoadFailures();
        {
            PollScope poll;  // after a timeout there may be blocks nobody wrote
            Load(blocks, At<uint32_t>(window_.Control(window_.rank, layout_.Offset(epoch_ & 1, 0))),
                 words);
        }
        MOE_SYNC(MTE2_S);
        window_.ShareFailure();
        if (window_.failed) return;
        SlotWalk walk(blocks, taken_buffer.Get<uint32_t>(), layout_, window_.ranks,
                      p_.local_experts);
        uint32_t rows = Smaller(walk.Total(), Smaller(p_.capacity, window_.ranks * MateRows(p_)));
        // Eight places of 8 bytes, weights and scales of 4 end on a block boundary.
        Share share = RowShare(rows, RowGroup(TokenBytes(p_), 8), window_.core, window_.cores);
        if (share.begin < share.end) Pull(walk, share);
        if (window_.core == window_.cores - 1)
            WriteCounts(pipe_, walk, window_.ranks, p_.local_experts, p_.cumulative_counts != 0,
                        t_.ep_recv_counts, t_.expert_token_nums);
    }

 private:
    static constexpr uint32_t kBatch = 256;  // rows whose places, weights and scales are written
                                             // together; a multiple of every row group

    __aicore__ inline void Pull(SlotWalk& walk, Share share) {
        pipe_->InitBuffer(rows_, 4, TokenBytes(p_));
        pipe_->InitBuffer(entries_, 4 * kBatch * kBlockWords);
        pipe_->InitBuffer(segments_, 16 * kBatch);
        pipe_->InitBuffer(places_, 8 * kBatch);
        pipe_->InitBuffer(weights_, 4 * kBatch);
        if (p_.quant) pipe_->InitBuffer(scales_, 4 * kBatch);
        walk.Restart();
        for (uint32_t first = share.begin; first < share.end; first += kBatch) {
            uint32_t end = Smaller(first + kBatch, share.end);
            uint32_t segments = LoadLists(walk, first, end);
            MOE_SYNC(MTE2_S);
            for (uint32_t i = 0; i < segments; ++i) PullSegment(i, first);
            WriteBatch(first, end - first);
        }
    }

    // The parts of the lists that describe rows [first, end). Lists are in the own window.
    __aicore__ inline uint32_t LoadLists(SlotWalk& walk, uint32_t first, uint32_t end) {
        LocalTensor<uint32_t> segments = segments_.Get<uint32_t>(),
                              entries = entries_.Get<uint32_t>();
        uint32_t number = 0, at = 0;
        MOE_SYNC(S_MTE2);
        while (true) {
            uint32_t from = walk.begin > first ? walk.begin : first;
            uint32_t to = Smaller(walk.begin + walk.count, end);
            if (from < to) {
                const uint64_t list =
                    window_.Data(window_.rank, half_ + MateListOffset(p_, topology_, walk.source));
                const uint32_t skipped = walk.InList() + from - walk.begin;
                Load(entries[at], At<uint32_t>(list + 4ull * skipped * EntryWords(p_)),
                     (to - from) * EntryWords(p_));
                segments.SetValue(4 * number, from);
                segments.SetValue(4 * number + 1, to - from);
                segments.SetValue(4 * number + 2, walk.source);
                segments.SetValue(4 * number + 3, at);
                at += AlignUp((to - from) * EntryWords(p_), kBlockWords);
                ++number;
            }
            if (walk.begin + walk.count >= end) return number;
            walk.Next();
        }
    }

    __aicore__ inline void PullSegment(uint32_t index, uint32_t first) {
        LocalTensor<uint32_t> segments = segments_.Get<uint32_t>(),
                              entries = entries_.Get<uint32_t>(), places = places_.Get<uint32_t>(),
                              weights = weights_.Get<uint32_t>();
        uint32_t row = segments.GetValue(4 * index), count = segments.GetValue(4 * index + 1);
        uint32_t source = segments.GetValue(4 * index + 2), at = segments.GetValue(4 * index + 3);
        const uint64_t stage =
            window_.Data(servers_.RelayOf(source),
                         half_ + StageOffset(p_, topology_, source / topology_.per_server));
        for (uint32_t i = 0; i < count; ++i) {
            uint32_t word = at + i * EntryWords(p_), entry = entries.GetValue(word),
                     in_batch = row + i - first;
            places.SetValue(2 * in_batch, entry >> kEntryBits & kEntryMask);
            places.SetValue(2 * in_batch + 1, entry >> 2 * kEntryBits);
            weights.SetValue(in_batch, entries.GetValue(word + 1));
            if (p_.quant) scales_.Get<uint32_t>().SetValue(in_batch, entries.GetValue(word + 2));
            LocalTensor<uint8_t> buffer = rows_.AllocTensor<uint8_t>();
            Load(buffer,
                 At<uint8_t>(stage + static_cast<uint64_t>(entry & kEntryMask) * TokenBytes(p_)),
                 TokenBytes(p_));
            rows_.EnQue(buffer);
            buffer = rows_.DeQue<uint8_t>();
            Store(At<uint8_t>(t_.expand_x + static_cast<uint64_t>(row + i) * TokenBytes(p_)),
                  buffer, TokenBytes(p_));
            rows_.FreeTensor(buffer);
        }
    }

    __aicore__ inline void WriteBatch(uint32_t first, uint32_t count) {
        MOE_SYNC(S_MTE3);
        Store(At<uint32_t>(t_.ep_recv_counts + 4ull * (p_.moe_experts + 2 * first)),
              places_.Get<uint32_t>(), 2 * count);
        Store(At<uint32_t>(t_.expand_scales + 4ull * first), weights_.Get<uint32_t>(), count);
        if (p_.quant)
            Store(At<uint32_t>(t_.dynamic_scales + 4ull * first), scales_.Get<uint32_t>(), count);
        MOE_SYNC(MTE3_S);
    }

    TPipe* pipe_;
    Window& window_;
    const Servers& servers_;
    const Topology& topology_;
    const Parameters& p_;
    const HierarchyDispatchTensors& t_;
    CountsLayout layout_;
    uint32_t epoch_;
    uint64_t half_;
    AscendC::TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> rows_;
    Buffer entries_, segments_, places_, weights_, scales_;
};

}  // namespace ascend_moe
