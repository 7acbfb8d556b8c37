// Dispatch, the relay: what has come over the rail, handed to the mates as if this rank were its
// source.
#pragma once

#include "../publish.h"
#include "stage.h"

namespace ascend_moe {

class Relay {
 public:
    __aicore__ inline Relay(TPipe* pipe, Window& window, const Servers& servers,
                            const Parameters& p, const HierarchyDispatchTensors& t, uint32_t epoch)
        : pipe_(pipe),
          window_(window),
          servers_(servers),
          topology_(servers.topology),
          p_(p),
          t_(t),
          layout_(p),
          epoch_(epoch),
          half_(InputHalf(window.bytes, epoch & 1)) {
        pipe->InitBuffer(head_, 4 * IndexEntries(p, topology_.per_server));
        pipe->InitBuffer(pieces_, 4, kPiece);
        pipe->InitBuffer(counts_, layout_.blocks * kBlockBytes);
    }

    // Every core waits for the tags of all servers and takes its share of the rows of each.
    __aicore__ inline void Receive() {
        Waited waited(window_, Servers::Measured(window_, p_));
        waited.Watch(pipe_, MOE_FLAG("arrival"), kArrivedOffset, 1, Share{0, window_.ranks},
                     epoch_);
        servers_.UntilRail(waited);
        waited.MergeInto(t_.performance_info, p_.waits);
        for (uint32_t i = 1; i < topology_.servers && !window_.failed; ++i) {
            uint32_t server = (topology_.server + i) % topology_.servers,
                     peer = servers_.Rail(server);
            window_.Wait(MOE_FLAG("arrival"), kArrivedOffset + peer * kBlockBytes, 1, 1, peer,
                         epoch_);
            if (window_.failed) return;
            LocalTensor<uint32_t> head = LoadIndex(server, kIndexCounts);
            if (head.GetValue(kIndexMark) != MarkOf(p_)) {
                window_.Fail(kOtherCall, peer);
                return;
            }
            if (kRelayCopies) CopyRows(server, head.GetValue(kIndexTokens));
        }
    }

    // After all cores have received: to every mate its part of every index, then the counts.
    __aicore__ inline void Forward() {
        for (uint32_t i = window_.core; i < topology_.servers * topology_.per_server;
             i += window_.cores) {
            uint32_t server = i / topology_.per_server,
                     number = (topology_.number + i) % topology_.per_server;
            ForwardTo(server, number);
        }
    }

 private:
    static constexpr uint32_t kPiece = 16 << 10;  // bytes that are copied at a time

    // The first words of the index of a server.
    __aicore__ inline LocalTensor<uint32_t> LoadIndex(uint32_t server, uint32_t words) {
        LocalTensor<uint32_t> head = head_.Get<uint32_t>();
        MOE_SYNC(S_MTE2);
        Load(head, At<uint32_t>(Index(server)), words);
        MOE_SYNC(MTE2_S);
        return head;
    }
    __aicore__ inline uint64_t Index(uint32_t server) const {
        return window_.Data(window_.rank, half_ + InputIndexOffset(p_, topology_, server));
    }

    __aicore__ inline void CopyRows(uint32_t server, uint32_t tokens) {
        Share share = ShareOf(Smaller(tokens, p_.max_batch), window_.core, window_.cores);
        const uint64_t skipped = static_cast<uint64_t>(share.begin) * TokenBytes(p_);
        Copy(window_.Data(window_.rank,
                          half_ + ReceivedOffset(p_, topology_, topology_.server, server)) +
                 skipped,
             window_.Data(window_.rank, half_ + StageOffset(p_, topology_, server)) + skipped,
             (share.end - share.begin) * TokenBytes(p_));
    }

    __aicore__ inline void Copy(uint64_t from, uint64_t to, uint32_t bytes) {
        for (uint32_t at = 0; at < bytes; at += kPiece) {
            uint32_t length = Smaller(bytes - at, kPiece);
            LocalTensor<uint8_t> piece = pieces_.AllocTensor<uint8_t>();
            Load(piece, At<uint8_t>(from + at), length);
            pieces_.EnQue(piece);
            piece = pieces_.DeQue<uint8_t>();
            Store(At<uint8_t>(to + at), piece, length);
            pieces_.FreeTensor(piece);
        }
    }

    __aicore__ inline void ForwardTo(uint32_t server, uint32_t number) {
        const uint32_t source = servers_.Rail(server), mate = servers_.Mate(number);
        LocalTensor<uint32_t> head = LoadIndex(server, IndexEntries(p_, topology_.per_server)),
                              counts = counts_.Get<uint32_t>();
        uint32_t before = 0, rows = 0;
        for (uint32_t i = 0; i < layout_.blocks * kBlockWords; ++i) {
            uint32_t word = i % kBlockWords;
            counts.SetValue(i, word == 0 ? window_.nonce : word == 1 ? epoch_ : 0);
        }
        for (uint32_t e = 0; e < number * p_.local_experts; ++e)
            before += head.GetValue(kIndexCounts + e);
        for (uint32_t e = 0; e < p_.local_experts; ++e) {
            uint32_t count = head.GetValue(kIndexCounts + number * p_.local_experts + e);
            counts.SetValue(CountsLayout::Word(CountsLayout::kExperts + e), count);
            rows += count;
        }
        counts.SetValue(CountsLayout::Word(CountsLayout::kTotal), rows);
        counts.SetValue(CountsLayout::Word(CountsLayout::kMark), MarkOf(p_));
        if (number == topology_.number) KeepRelayed(server, head);
        const uint64_t part = Index(server) + 4ull * (IndexEntries(p_, topology_.per_server) +
                                                      before * EntryWords(p_));
        Copy(part, window_.Data(mate, half_ + MateListOffset(p_, topology_, source)),
             4 * Smaller(rows, MateRows(p_)) * EntryWords(p_));
        MOE_SYNC(S_MTE3);
        AscendC::PipeBarrier<PIPE_MTE3>();  // the list before the counts that announce it
        if (!PostDropped(MOE_FLAG("counts")))
            Store(At<uint32_t>(window_.Control(mate, layout_.Offset(epoch_ & 1, source))), counts,
                  layout_.blocks * kBlockWords);
        MOE_SYNC(MTE3_S);
    }

    // The tokens that this rank relays, for combine.
    __aicore__ inline void KeepRelayed(uint32_t server, const LocalTensor<uint32_t>& head) {
        Store(At<uint32_t>(t_.ep_recv_counts +
                           4ull * (HandleRelayed(p_, window_.ranks) + server * SentWords(p_))),
              head[IndexSent(p_, topology_.per_server)], SentWords(p_));
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
    Buffer head_, counts_;
    AscendC::TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> pieces_;
};

}  // namespace ascend_moe
