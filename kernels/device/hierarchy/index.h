// Dispatch, the owner's messages: the rows of a server, its index, made while the rows travel, and
// the tag that proves both. The index of the own server needs no message.
#pragma once

#include "stage.h"

namespace ascend_moe {

class ServerSender {
 public:
    __aicore__ inline ServerSender(TPipe* pipe, Window& window, const Servers& servers,
                                   const Parameters& p, const HierarchyDispatchTensors& t,
                                   uint32_t epoch, uint32_t active)
        : window_(window), servers_(servers), p_(p), t_(t), epoch_(epoch), active_(active) {
        uint32_t pairs = (active == 0 ? 1 : active) * p.topk;
        pipe->InitBuffer(ids_, 4 * pairs);
        pipe->InitBuffer(weights_, 4 * pairs);
        pipe->InitBuffer(index_, 4 * IndexWords(p, servers.topology.per_server));
        pipe->InitBuffer(sums_, 4 * SentWords(p));
        if (p.quant) pipe->InitBuffer(scales_, kBlockBytes * p.max_batch);
        post_.InitBuffers(pipe);
    }

    __aicore__ inline void Run() {
        const Topology& topology = servers_.topology;
        if (window_.core >= topology.servers) return;
        if (active_ > 0) {
            Load(ids_.Get<int32_t>(), At<int32_t>(t_.expert_ids), active_ * p_.topk);
            Load(weights_.Get<float>(), At<float>(t_.expert_scales), active_ * p_.topk);
            if (p_.quant)
                Load(scales_.Get<float>(), At<float>(t_.workspace + ScalesOffset()),
                     active_ * kBlockWords);
        }
        MOE_SYNC(MTE2_S);
        for (uint32_t server = window_.core; server < topology.servers; server += window_.cores) {
            if (server == topology.server) {
                uint32_t words = MakeIndex(server);
                MOE_SYNC(S_MTE3);
                Store(At<uint32_t>(
                          window_.Data(window_.rank, InputHalf(window_.bytes, epoch_ & 1) +
                                                         InputIndexOffset(p_, topology, server))),
                      index_.Get<uint32_t>(), words);
                KeepSums(server);
            } else {
                Send(server);
            }
        }
    }

 private:
    __aicore__ inline void Send(uint32_t server) {
        const Topology& topology = servers_.topology;
        QueuePair pair = servers_.Queue(post_, server);
        const uint32_t parity = epoch_ & 1;
        const uint64_t from = OutputThird(window_.bytes, parity),
                       to = InputHalf(window_.bytes, parity);
        uint32_t tokens = 0;
        for (uint32_t token = 0; token < active_; ++token)
            tokens += ServersOf(ids_.Get<int32_t>(), token, p_, topology) >> server & 1;
        if (tokens > 0) {
            post_.Post(window_, pair,
                       from + OtherServer(server, topology.server) * TokenAreaBytes(p_),
                       to + ReceivedOffset(p_, topology, server, topology.server),
                       tokens * TokenBytes(p_));
        }
        const uint64_t index = from + OutputIndexOffset(p_, topology, server);
        uint32_t words = MakeIndex(server);
        MOE_SYNC(S_MTE3);
        Store(At<uint32_t>(pair.output + index), index_.Get<uint32_t>(), words);
        KeepSums(server);
        post_.Post(window_, pair, index, to + InputIndexOffset(p_, topology, topology.server),
                   4 * words);
        post_.PostTag(MOE_FLAG("arrival"), window_, pair,
                      TagSourceOffset(TagSource::kArrived, parity, server),
                      kArrivedOffset + window_.rank * kBlockBytes, epoch_);
    }

    // Of pair (token, k) of an expert of [first, first + experts): its place in the sum of the
    // token. False if it goes elsewhere, or repeats an expert of the token: a contract forbids
    // that, and nobody has room for it.
    __aicore__ inline bool Place(uint32_t token, uint32_t k, uint32_t first, uint32_t experts,
                                 uint32_t* expert, uint32_t* place) {
        LocalTensor<int32_t> ids = ids_.Get<int32_t>();
        uint32_t row = token * p_.topk;
        int32_t id = ids.GetValue(row + k);
        *expert = static_cast<uint32_t>(id) - first;
        if (*expert >= experts || static_cast<uint32_t>(id) >= p_.moe_experts) return false;
        *place = k;
        if (servers_.by_expert) *place = 0;
        for (uint32_t other = 0; other < p_.topk; ++other) {
            int32_t compared = ids.GetValue(row + other);
            if (compared == id && other < k) return false;
            if (servers_.by_expert && compared < id) ++*place;
        }
        return true;
    }

    // Into index_; its words, whole blocks.
    __aicore__ inline uint32_t MakeIndex(uint32_t server) {
        const uint32_t experts = ServerExperts(p_, servers_.topology.per_server),
                       first = server * experts,
                       sent_at = IndexSent(p_, servers_.topology.per_server),
                       rows_at = IndexEntries(p_, servers_.topology.per_server);
        LocalTensor<uint32_t> index = index_.Get<uint32_t>(), counts = index[kIndexCounts],
                              sent = index[sent_at], rows = index[rows_at],
                              sums = sums_.Get<uint32_t>();
        for (uint32_t i = 0; i < rows_at; ++i) index.SetValue(i, 0);
        for (uint32_t i = 0; i < SentWords(p_); ++i) sums.SetValue(i, 0);
        uint32_t tokens = 0, total = 0, expert = 0, place = 0;
        for (uint32_t token = 0; token < active_; ++token) {
            uint32_t places = 0;
            for (uint32_t k = 0; k < p_.topk; ++k) {
                if (!Place(token, k, first, experts, &expert, &place)) continue;
                counts.SetValue(expert, counts.GetValue(expert) + 1);
                places |= 1u << place;
            }
            if (places == 0) continue;
            sent.SetValue(tokens++, token | places << kPlacesShift);
            sums.SetValue(token, tokens);
        }
        // The counts turn into the experts' first places, move on to their ends, and turn back.
        for (uint32_t e = 0; e < experts; ++e) {
            uint32_t count = counts.GetValue(e);
            counts.SetValue(e, total);
            total += count;
        }
        for (uint32_t position = 0; position < tokens; ++position) {
            uint32_t token = sent.GetValue(position) & kTokenMask;
            for (uint32_t k = 0; k < p_.topk; ++k) {
                if (!Place(token, k, first, experts, &expert, &place)) continue;
                uint32_t at = counts.GetValue(expert), word = at * EntryWords(p_);
                counts.SetValue(expert, at + 1);
                rows.SetValue(word, PackEntry(position, token, place));
                rows.SetValue(word + 1, weights_.Get<uint32_t>().GetValue(token * p_.topk + k));
                if (p_.quant)
                    rows.SetValue(word + 2, scales_.Get<uint32_t>().GetValue(token * kBlockWords));
            }
        }
        for (uint32_t e = 0, begin = 0; e < experts; ++e) {
            uint32_t end = counts.GetValue(e);
            counts.SetValue(e, end - begin);
            begin = end;
        }
        index.SetValue(kIndexMark, MarkOf(p_));
        index.SetValue(kIndexTokens, tokens);
        index.SetValue(kIndexRows, total);
        uint32_t words = rows_at + total * EntryWords(p_), whole = AlignUp(words, kBlockWords);
        for (uint32_t i = words; i < whole; ++i) index.SetValue(i, 0);
        return whole;
    }

    // Where the sums of that server will lie, for combine. Behind it the buffers are free.
    __aicore__ inline void KeepSums(uint32_t server) {
        Store(At<uint32_t>(t_.ep_recv_counts +
                           4ull * (HandleSums(p_, servers_.topology, window_.ranks) +
                                   server * SentWords(p_))),
              sums_.Get<uint32_t>(), SentWords(p_));
        MOE_SYNC(MTE3_S);
    }

    Window& window_;
    const Servers& servers_;
    const Parameters& p_;
    const HierarchyDispatchTensors& t_;
    uint32_t epoch_, active_;
    Buffer ids_, weights_, index_, sums_, scales_;
    RdmaPost post_;
};

}  // namespace ascend_moe
