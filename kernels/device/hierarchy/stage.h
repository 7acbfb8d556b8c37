// Dispatch, the owner's tokens: how many go to which server, and every token, quantised once, into
// the message for each server that has one of its experts.
#pragma once

#include "../int8.h"
#include "servers.h"

namespace ascend_moe {

// The GM operands of dispatch over several servers, in the order of the kernel's arguments.
struct HierarchyDispatchTensors {
    uint64_t x, expert_ids, expert_scales, mask;
    uint64_t expand_x, dynamic_scales, expert_token_nums, ep_recv_counts, expand_scales;
    uint64_t performance_info, workspace;
};

// The servers of the experts of `token`, a bit each. Ids out of range belong to none.
__aicore__ inline uint32_t ServersOf(const LocalTensor<int32_t>& ids, uint32_t token,
                                     const Parameters& p, const Topology& topology) {
    uint32_t experts = ServerExperts(p, topology.per_server), servers = 0;
    for (uint32_t k = 0; k < p.topk; ++k) {
        uint32_t expert = static_cast<uint32_t>(ids.GetValue(token * p.topk + k));
        if (expert < p.moe_experts) servers |= 1u << expert / experts;
    }
    return servers;
}

class ServerStager {
 public:
    __aicore__ inline ServerStager(TPipe* pipe, const Window& window, const Servers& servers,
                                   const Parameters& p, const HierarchyDispatchTensors& t,
                                   uint32_t epoch, uint32_t active)
        : pipe_(pipe),
          window_(window),
          topology_(servers.topology),
          p_(p),
          t_(t),
          messages_(servers.output + OutputThird(window.bytes, epoch & 1)),
          stage_(window.Data(window.rank, InputHalf(window.bytes, epoch & 1) +
                                              StageOffset(p, topology_, topology_.server))),
          share_(ShareOf(active, window.core, window.cores)) {
        uint32_t tokens = share_.end - share_.begin;
        pipe->InitBuffer(ids_, 4 * (tokens == 0 ? 1 : tokens) * p.topk);
        pipe->InitBuffer(counts_, window.cores * kMaxServers * 4);
        if (tokens == 0) return;
        Load(ids_.Get<int32_t>(), At<int32_t>(t.expert_ids + 4ull * share_.begin * p.topk),
             tokens * p.topk);
        MOE_SYNC(MTE2_S);
    }

    // The tokens of this core's share for each server, into the workspace.
    __aicore__ inline void Count() {
        LocalTensor<uint32_t> counts = counts_.Get<uint32_t>();
        for (uint32_t server = 0; server < kMaxServers; ++server) counts.SetValue(server, 0);
        for (uint32_t token = share_.begin; token < share_.end; ++token) {
            uint32_t servers = Destinations(token);
            for (uint32_t server = 0; server < topology_.servers; ++server)
                counts.SetValue(server, counts.GetValue(server) + (servers >> server & 1));
        }
        MOE_SYNC(S_MTE3);
        Store(At<uint32_t>(t_.workspace + window_.core * kMaxServers * 4), counts, kMaxServers);
    }

    // After all have counted.
    __aicore__ inline void Run() {
        if (share_.begin == share_.end) return;
        LocalTensor<uint32_t> counts = counts_.Get<uint32_t>();
        Load(counts, At<uint32_t>(t_.workspace), window_.cores * kMaxServers);
        MOE_SYNC(MTE2_S);
        for (uint32_t server = 0; server < topology_.servers; ++server) {
            next_[server] = 0;
            for (uint32_t core = 0; core < window_.core; ++core)
                next_[server] += counts.GetValue(core * kMaxServers + server);
        }
        if (!p_.quant) {
            CopyRows();
        } else if (p_.element == Element::kBfloat16) {
            QuantizeRows<bfloat16_t>();
        } else {
            QuantizeRows<half>();
        }
    }

 private:
    static constexpr uint32_t kScales = 32;  // that are written together

    __aicore__ inline uint32_t Destinations(uint32_t token) {
        return ServersOf(ids_.Get<int32_t>(), token - share_.begin, p_, topology_);
    }

    template <typename T>
    __aicore__ inline void Put(const LocalTensor<T>& row, uint32_t token) {
        uint32_t servers = Destinations(token);
        for (uint32_t server = 0; server < topology_.servers; ++server) {
            if ((servers >> server & 1) == 0) continue;
            uint64_t area =
                server == topology_.server
                    ? stage_
                    : messages_ + OtherServer(server, topology_.server) * TokenAreaBytes(p_);
            Store(At<T>(area + static_cast<uint64_t>(next_[server]++) * TokenBytes(p_)), row,
                  TokenBytes(p_) / sizeof(T));
        }
    }

    __aicore__ inline void CopyRows() {
        AscendC::TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> rows;
        pipe_->InitBuffer(rows, 4, TokenBytes(p_));
        for (uint32_t token = share_.begin; token < share_.end; ++token) {
            LocalTensor<uint8_t> row = rows.AllocTensor<uint8_t>();
            Load(row, At<uint8_t>(t_.x + static_cast<uint64_t>(token) * TokenBytes(p_)),
                 TokenBytes(p_));
            rows.EnQue(row);
            row = rows.DeQue<uint8_t>();
            Put(row, token);
            rows.FreeTensor(row);
        }
    }

    template <typename X>
    __aicore__ inline void QuantizeRows() {
        AscendC::TQue<TPosition::VECIN, 1> inputs;
        AscendC::TQue<TPosition::VECOUT, 1> outputs;
        Buffer wide_buffer, scale_buffer;
        RowQuantizer quantizer;
        pipe_->InitBuffer(inputs, 2, 2 * p_.hidden);
        pipe_->InitBuffer(outputs, 2, p_.hidden);
        pipe_->InitBuffer(wide_buffer, 4 * p_.hidden);
        pipe_->InitBuffer(scale_buffer, kScales * kBlockBytes);
        quantizer.InitBuffers(pipe_, p_.hidden);
        LocalTensor<float> wide = wide_buffer.Get<float>(), scales = scale_buffer.Get<float>();
        for (uint32_t i = 0; i < kScales * kBlockWords; ++i) scales.SetValue(i, 0.0f);
        for (uint32_t token = share_.begin; token < share_.end; ++token) {
            // The quantiser's V_S wait already keeps this load behind the use of the buffer.
            LocalTensor<X> input = inputs.AllocTensor<X>();
            Load(input, At<X>(t_.x + 2ull * token * p_.hidden), p_.hidden);
            inputs.EnQue(input);
            input = inputs.DeQue<X>();
            AscendC::Cast(wide, input, RoundMode::CAST_NONE, p_.hidden);
            inputs.FreeTensor(input);
            MOE_VBARRIER();
            LocalTensor<int8_t> out = outputs.AllocTensor<int8_t>();
            uint32_t kept = (token - share_.begin) % kScales;
            scales.SetValue(kept * kBlockWords, quantizer.Quantize(out, wide));
            outputs.EnQue(out);
            out = outputs.DeQue<int8_t>();
            Put(out, token);
            outputs.FreeTensor(out);
            if (kept + 1 < kScales && token + 1 < share_.end) continue;
            MOE_SYNC(S_MTE3);
            Store(At<float>(t_.workspace + ScalesOffset() + (token - kept) * kBlockBytes), scales,
                  (kept + 1) * kBlockWords);
            MOE_SYNC(MTE3_S);
        }
    }

    TPipe* pipe_;
    const Window& window_;
    Topology topology_;
    const Parameters& p_;
    const HierarchyDispatchTensors& t_;
    uint64_t messages_, stage_;
    Share share_;
    uint32_t next_[kMaxServers];  // where the next token for each server goes
    Buffer ids_, counts_;
};

}  // namespace ascend_moe
