// Combine, the source's side: wait for the ranks that owe rows, sum them in slot order.
#pragma once

#include "return_rows.h"

namespace ascend_moe {

template <typename X>
class Reducer {
  public:
    __aicore__ inline Reducer(TPipe* pipe, Window& window, const Parameters& p, const CombineTensors& t, uint32_t epoch, uint32_t active)
        : window_(window), p_(p), t_(t), routing_(p, window.rank), epoch_(epoch), active_(active),
          slots_(window.Of(window.rank, RowsOffset(window.bytes))) {
        pipe->InitBuffer(rows_, 2, p.comm_quant ? MaxOf(2 * p.hidden, GroupQuantizer<X>::StoredBytes(p)) : 2 * p.hidden);
        pipe->InitBuffer(outputs_, 2, 2 * p.hidden);
        pipe->InitBuffer(wide_, 4 * p.hidden);
        pipe->InitBuffer(sum_, 4 * p.hidden);
        pipe->InitBuffer(ids_, 4 * p.topk);
        pipe->InitBuffer(weights_, 4 * p.topk);
        pipe->InitBuffer(mask_, p.topk);
        pipe->InitBuffer(own_, kBlockBytes * kMaxTerms);
        if (p.comm_quant) quantizer_.InitBuffers(pipe, p);
        for (uint32_t i = 0; i < kMaxRanks / 32; ++i) arrived_[i] = 0;
    }

    __aicore__ inline void Run() {
        Share share = RowShare(p_.batch, RowGroup(2 * p_.hidden, 1), window_.core, window_.cores);
        for (uint32_t token = share.begin; token < share.end && !window_.failed; ++token) {
            terms_ = 0;
            if (token < active_) CollectTerms(token);
            if (!window_.failed) WriteSum(token);
        }
    }

  private:
    static constexpr uint32_t kMaxTerms = 21;  // 16 experts, 4 shared experts, shared_expert_x

    struct Term {
        uint64_t row;   // where it is; 0: row own_row of expand_x, not yet known
        float weight;
        bool weighted, stored_int8;
    };

    __aicore__ inline static uint32_t MaxOf(uint32_t a, uint32_t b) { return a > b ? a : b; }

    // What token is the sum of, in order: experts 0..K-1, shared experts, shared_expert_x.
    __aicore__ inline void CollectTerms(uint32_t token) {
        LocalTensor<int32_t> ids = ids_.Get<int32_t>();
        LocalTensor<float> weights = weights_.Get<float>();
        LocalTensor<uint8_t> mask = mask_.Get<uint8_t>();
        bool pairs = p_.mask == Mask::kPairs, any = !pairs;
        MOE_SYNC(S_MTE2);
        Load(ids, At<int32_t>(t_.expert_ids + 4ull * token * p_.topk), p_.topk);
        Load(weights, At<float>(t_.expert_scales + 4ull * token * p_.topk), p_.topk);
        if (pairs) Load(mask, At<uint8_t>(t_.mask + static_cast<uint64_t>(token) * p_.topk), p_.topk);
        MOE_SYNC(MTE2_S);
        for (uint32_t k = 0; k < p_.topk; ++k) {
            if (pairs && mask.GetValue(k) == 0) continue;
            any = true;
            int32_t expert = ids.GetValue(k);
            if (expert < 0) continue;
            if (expert < static_cast<int32_t>(p_.moe_experts)) {
                AddRow(routing_.RankOfExpert(expert), token, k, weights.GetValue(k), true);
            } else if (static_cast<uint32_t>(expert) - p_.moe_experts - p_.zero_experts < p_.copy_experts) {
                AddLocal(t_.ori_x, token, weights.GetValue(k), true);
            }
        }
        if (!any) return;
        for (uint32_t s = 0; s < p_.shared_experts; ++s) AddRow(routing_.RankOfShared(s), token, p_.topk + s, 1.0f, false);
        if (p_.shared_x) AddLocal(t_.shared_x, token, 1.0f, false);
        FindOwnRows();
    }

    // A row that `from` has returned: waits until it has.
    __aicore__ inline void AddRow(uint32_t from, uint32_t token, uint32_t slot, float weight, bool weighted) {
        if (from == window_.rank && !OwnRowsTravel(p_)) {
            Load(own_.Get<uint32_t>()[terms_ * kBlockWords], At<uint32_t>(t_.workspace + OwnRowOffset(p_, token, slot)), 1);
            Append(0, weight, weighted, false);
            return;
        }
        if ((arrived_[from / 32] >> (from % 32) & 1) == 0) {
            window_.Wait("rows", kDoneOffset + from * kBlockBytes, 1, 1, from, epoch_);
            arrived_[from / 32] |= 1u << (from % 32);
        }
        Append(slots_ + SlotOffset(p_, token, slot), weight, weighted, p_.comm_quant != 0);
    }
    __aicore__ inline void AddLocal(uint64_t tensor, uint32_t token, float weight, bool weighted) {
        Append(tensor + 2ull * token * p_.hidden, weight, weighted, false);
    }
    __aicore__ inline void Append(uint64_t row, float weight, bool weighted, bool stored_int8) {
        term_[terms_++] = Term{row, weight, weighted, stored_int8};
    }
    __aicore__ inline void FindOwnRows() {
        MOE_SYNC(MTE2_S);
        for (uint32_t i = 0; i < terms_; ++i) {
            if (term_[i].row != 0) continue;
            uint32_t row = own_.Get<uint32_t>().GetValue(i * kBlockWords);
            if (row >= p_.capacity) row = 0;  // dispatch and combine disagree; stay inside expand_x
            term_[i].row = t_.expand_x + 2ull * row * p_.hidden;
        }
    }

    __aicore__ inline void LoadTerm(const Term& term) {
        if (term.stored_int8) {
            LocalTensor<int8_t> row = rows_.template AllocTensor<int8_t>();
            Load(row, At<int8_t>(term.row), p_.hidden);
            Load(row[CommScaleOffset(p_)], At<int8_t>(term.row + CommScaleOffset(p_)), 2 * CeilDiv(p_.hidden, 8));
            rows_.EnQue(row);
        } else {
            LocalTensor<X> row = rows_.template AllocTensor<X>();
            Load(row, At<X>(term.row), p_.hidden);
            rows_.EnQue(row);
        }
    }

    __aicore__ inline void AddTerm(const Term& term) {
        LocalTensor<float> wide = wide_.Get<float>(), sum = sum_.Get<float>();
        if (term.stored_int8) {
            LocalTensor<int8_t> row = rows_.template DeQue<int8_t>();
            quantizer_.Dequantize(wide, row);
            rows_.FreeTensor(row);
        } else {
            LocalTensor<X> row = rows_.template DeQue<X>();
            AscendC::Cast(wide, row, RoundMode::CAST_NONE, p_.hidden);
            rows_.FreeTensor(row);
            MOE_VBARRIER();
        }
        if (term.weighted) {
            // Two roundings, product and sum, as the stock kernels: no fused multiply-add.
            AscendC::Muls(wide, wide, term.weight, p_.hidden);
            MOE_VBARRIER();
        }
        AscendC::Add(sum, sum, wide, p_.hidden);
        MOE_VBARRIER();
    }

    __aicore__ inline void WriteSum(uint32_t token) {
        LocalTensor<float> sum = sum_.Get<float>();
        AscendC::Duplicate(sum, 0.0f, p_.hidden);
        MOE_VBARRIER();
        if (terms_ > 0) LoadTerm(term_[0]);
        for (uint32_t i = 0; i < terms_; ++i) {
            if (i + 1 < terms_) LoadTerm(term_[i + 1]);
            AddTerm(term_[i]);
        }
        LocalTensor<X> out = outputs_.template AllocTensor<X>();
        AscendC::Cast(out, sum, RoundMode::CAST_RINT, p_.hidden);
        outputs_.EnQue(out);
        out = outputs_.template DeQue<X>();
        Store(At<X>(t_.out + 2ull * token * p_.hidden), out, p_.hidden);
        outputs_.FreeTensor(out);
    }

    Window& window_;
    const Parameters& p_;
    const CombineTensors& t_;
    Routing routing_;
    uint32_t epoch_, active_;
    uint64_t slots_;
    uint32_t terms_ = 0;
    Term term_[kMaxTerms];
    uint32_t arrived_[kMaxRanks / 32];  // bit r: rank r's rows are here
    AscendC::TQue<TPosition::VECIN, 1> rows_;
    AscendC::TQue<TPosition::VECOUT, 1> outputs_;
    Buffer wide_, sum_, ids_, weights_, mask_, own_;
    GroupQuantizer<X> quantizer_;
};

}  // namespace ascend_moe
