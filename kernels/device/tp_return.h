// Combine with TP: each own row becomes the sum of the pair's two copies, rounded, before it
// returns to its source.
#pragma once

#include "return_rows.h"
#include "tp_lane.h"

namespace ascend_moe {

template <typename X>
class TpReturner {
 public:
    __aicore__ inline TpReturner(TPipe* pipe, Window& window, const Parameters& p,
                                 const CombineTensors& t)
        : window_(window),
          p_(p),
          t_(t),
          rows_offset_(RowsOffset(window.bytes)),
          lane_(pipe, window, 2 * p.hidden) {
        pipe->InitBuffer(counts_, 2 * kBlockBytes);
        pipe->InitBuffer(triple_, kBlockBytes);
        pipe->InitBuffer(copies_, 2, 2 * p.hidden);
        pipe->InitBuffer(inputs_, 2, 2 * p.hidden);
        pipe->InitBuffer(outputs_, 2, 2 * p.hidden);
        pipe->InitBuffer(own_wide_, 4 * p.hidden);
        pipe->InitBuffer(copy_wide_, 4 * p.hidden);
    }

    __aicore__ inline void Run() {
        LocalTensor<uint32_t> counts = counts_.Get<uint32_t>();
        Load(counts, At<uint32_t>(LastCountAddress(p_, window_, t_.ep_send_counts)), 1);
        Load(counts[kBlockWords], At<uint32_t>(t_.tp_send_counts + 4ull * (1 - window_.tp_rank)),
             1);
        MOE_SYNC(MTE2_S);
        // Dispatch has failed if the counts say more than there is room for.
        uint32_t peer_rows = counts.GetValue(kBlockWords);
        own_rows_ = counts.GetValue(0);
        if (own_rows_ > p_.capacity) own_rows_ = p_.capacity;
        if (peer_rows > p_.capacity) peer_rows = p_.capacity;
        lane_.Meet(MOE_FLAG("TP meeting"));
        lane_.Exchange(*this, ShareOf(peer_rows, window_.core, window_.cores),
                       ShareOf(own_rows_, window_.core, window_.cores));
    }

    // Our copy of the peer's row: the peer's rows lie behind our own.
    __aicore__ inline void Send(uint32_t row, uint64_t place) {
        LocalTensor<uint8_t> buffer = copies_.template AllocTensor<uint8_t>();
        Load(buffer, At<uint8_t>(RowAddress(own_rows_ + row)), 2 * p_.hidden);
        copies_.EnQue(buffer);
        buffer = copies_.template DeQue<uint8_t>();
        Store(At<uint8_t>(place), buffer, 2 * p_.hidden);
        copies_.FreeTensor(buffer);
    }

    __aicore__ inline void Receive(uint32_t row, uint64_t place) {
        LocalTensor<uint32_t> triple = triple_.Get<uint32_t>();
        LocalTensor<float> own_wide = own_wide_.Get<float>(), copy_wide = copy_wide_.Get<float>();
        MOE_SYNC(S_MTE2);
        Load(triple, At<uint32_t>(t_.assist_info + 12ull * row), 3);
        Widen(own_wide, RowAddress(row));
        Widen(copy_wide, place);
        MOE_VBARRIER();
        AscendC::Add(own_wide, own_wide, copy_wide, p_.hidden);
        MOE_VBARRIER();
        LocalTensor<X> sum = outputs_.template AllocTensor<X>();
        AscendC::Cast(sum, own_wide, RoundMode::CAST_RINT, p_.hidden);
        outputs_.EnQue(sum);
        sum = outputs_.template DeQue<X>();
        MOE_SYNC(MTE2_S);
        uint32_t source = triple.GetValue(0), token = triple.GetValue(1), slot = triple.GetValue(2);
        if (source < window_.ranks && token < p_.max_batch && slot < p_.topk + p_.shared_experts) {
            Store(At<X>(window_.Data(source, rows_offset_ + SlotOffset(p_, token, slot))), sum,
                  p_.hidden);
        }
        outputs_.FreeTensor(sum);
    }

 private:
    __aicore__ inline uint64_t RowAddress(uint32_t row) const {
        return t_.expand_x + 2ull * (row < p_.capacity ? row : p_.capacity - 1) * p_.hidden;
    }
    __aicore__ inline void Widen(const LocalTensor<float>& wide, uint64_t from) {
        LocalTensor<X> input = inputs_.template AllocTensor<X>();
        Load(input, At<X>(from), p_.hidden);
        inputs_.EnQue(input);
        input = inputs_.template DeQue<X>();
        AscendC::Cast(wide, input, RoundMode::CAST_NONE, p_.hidden);
        inputs_.FreeTensor(input);
    }

    Window& window_;
    const Parameters& p_;
    const CombineTensors& t_;
    uint64_t rows_offset_;
    TpLane lane_;
    uint32_t own_rows_ = 0;
    Buffer counts_, triple_, own_wide_, copy_wide_;
    AscendC::TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> copies_;
    AscendC::TQue<TPosition::VECIN, 1> inputs_;
    AscendC::TQue<TPosition::VECOUT, 1> outputs_;
};

}  // namespace ascend_moe
