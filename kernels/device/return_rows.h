// Combine, the expert's side: every row of expand_x back to the rank it came from.
#pragma once

#include "int8.h"
#include "routing.h"

namespace ascend_moe {

// The GM operands of combine, in the order of the kernel's arguments.
struct CombineTensors {
    uint64_t expand_x, expert_ids, assist_info, ep_send_counts, expert_scales, tp_send_counts, mask,
        shared_x, elastic_info;
    uint64_t ori_x, const_alpha_1, const_alpha_2, const_v;
    uint64_t out, workspace;
};

// Where in the workspace a rank notes the row of expand_x that is its own pair's.
__aicore__ inline uint64_t OwnRowOffset(const Parameters& p, uint32_t token, uint32_t slot) {
    return static_cast<uint64_t>(token * (p.topk + p.shared_experts) + slot) * kBlockBytes;
}
__aicore__ inline uint64_t SlotOffset(const Parameters& p, uint32_t token, uint32_t slot) {
    return (token * (p.topk + p.shared_experts) + slot) * SlotPitch(p);
}

// Rows received by this rank: the last prefix sum of dispatch.
__aicore__ inline uint64_t LastCountAddress(const Parameters& p, const Window& window,
                                            uint64_t ep_send_counts) {
    return ep_send_counts +
           4ull * (window.ranks * Routing(p, window.rank).ExpertsOn(window.rank) - 1);
}

// Whether own rows travel like all others: the row that is summed is not the row in expand_x.
__aicore__ inline bool OwnRowsTravel(const Parameters& p) { return p.comm_quant || p.tp; }

template <typename X>
class RowReturner {
 public:
    __aicore__ inline RowReturner(TPipe* pipe, const Window& window, const Parameters& p,
                                  const CombineTensors& t)
        : window_(window), p_(p), t_(t), rows_offset_(RowsOffset(window.bytes)) {
        pipe->InitBuffer(triples_, 12 * kBatch);
        pipe->InitBuffer(own_, kBlockBytes * kBatch);
        pipe->InitBuffer(count_, kBlockBytes);
        if (p.comm_quant) {
            pipe->InitBuffer(inputs_, 2, 2 * p.hidden);
            pipe->InitBuffer(outputs_, 2, GroupQuantizer<X>::StoredBytes(p));
            pipe->InitBuffer(wide_, GroupQuantizer<X>::WideBytes(p));
            pipe->InitBuffer(work_, GroupQuantizer<X>::WideBytes(p));
            quantizer_.InitBuffers(pipe, p);
        } else {
            pipe->InitBuffer(rows_, 4, 2 * p.hidden);
        }
    }

    __aicore__ inline void Run() {
        LocalTensor<uint32_t> count = count_.Get<uint32_t>();
        Load(count, At<uint32_t>(LastCountAddress(p_, window_, t_.ep_send_counts)), 1);
        MOE_SYNC(MTE2_S);
        uint32_t rows = count.GetValue(0) < p_.capacity ? count.GetValue(0) : p_.capacity;
        Share share = ShareOf(rows, window_.core, window_.cores);
        for (uint32_t first = share.begin; first < share.end; first += kBatch) {
            SendBatch(first, first + kBatch < share.end ? kBatch : share.end - first);
        }
    }

 private:
    static constexpr uint32_t kBatch = 256;  // rows whose triples are loaded together

    __aicore__ inline void SendBatch(uint32_t first, uint32_t count) {
        LocalTensor<uint32_t> triples = triples_.Get<uint32_t>(), own = own_.Get<uint32_t>();
        MOE_SYNC(S_MTE2);
        Load(triples, At<uint32_t>(t_.assist_info + 12ull * first), 3 * count);
        MOE_SYNC(MTE2_S);
        MOE_SYNC(MTE3_S);
        for (uint32_t i = 0; i < count; ++i) own.SetValue(i * kBlockWords, first + i);
        MOE_SYNC(S_MTE3);
        for (uint32_t i = 0; i < count; ++i) {
            uint32_t source = triples.GetValue(3 * i), token = triples.GetValue(3 * i + 1),
                     slot = triples.GetValue(3 * i + 2);
            if (source >= window_.ranks || token >= p_.max_batch ||
                slot >= p_.topk + p_.shared_experts)
                continue;
            uint64_t row = t_.expand_x + 2ull * (first + i) * p_.hidden;
            if (source == window_.rank && !OwnRowsTravel(p_)) {
                Store(At<uint32_t>(t_.workspace + OwnRowOffset(p_, token, slot)),
                      own[i * kBlockWords], 1);
            } else {
                Send(window_.Data(source, rows_offset_ + SlotOffset(p_, token, slot)), row);
            }
        }
    }

    __aicore__ inline void Send(uint64_t to, uint64_t row) {
        if (!p_.comm_quant) {
            LocalTensor<uint8_t> buffer = rows_.template AllocTensor<uint8_t>();
            Load(buffer, At<uint8_t>(row), 2 * p_.hidden);
            rows_.EnQue(buffer);
            buffer = rows_.template DeQue<uint8_t>();
            Store(At<uint8_t>(to), buffer, 2 * p_.hidden);
            rows_.FreeTensor(buffer);
            return;
        }
        LocalTensor<X> input = inputs_.template AllocTensor<X>();
        Load(input, At<X>(row), p_.hidden);
        inputs_.EnQue(input);
        input = inputs_.template DeQue<X>();
        LocalTensor<int8_t> stored = outputs_.template AllocTensor<int8_t>();
        quantizer_.Quantize(stored, input, wide_.Get<float>(), work_.Get<float>());
        inputs_.FreeTensor(input);
        outputs_.EnQue(stored);
        stored = outputs_.template DeQue<int8_t>();
        Store(At<int8_t>(to), stored, p_.hidden);
        Store(At<int8_t>(to + CommScaleOffset(p_)), stored[CommScaleOffset(p_)],
              2 * CeilDiv(p_.hidden, 8));
        outputs_.FreeTensor(stored);
    }

    const Window& window_;
    const Parameters& p_;
    const CombineTensors& t_;
    uint64_t rows_offset_;
    Buffer triples_, own_, count_, wide_, work_;
    AscendC::TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> rows_;
    AscendC::TQue<TPosition::VECIN, 1> inputs_;
    AscendC::TQue<TPosition::VECOUT, 1> outputs_;
    GroupQuantizer<X> quantizer_;
};

}  // namespace ascend_moe
