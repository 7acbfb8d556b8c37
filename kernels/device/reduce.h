// Combine, the source's side: wait for the ranks that owe rows, sum them in slot order.
#pragma once

#include "return_rows.h"
#include "waited.h"

namespace ascend_moe {

// Where the rows that have come back are: in a slot for each pair. Waits for a rank when its first
// row is asked for.
class ReturnedSlots {
 public:
    __aicore__ inline ReturnedSlots(TPipe* pipe, Window& window, const Parameters& p,
                                    uint32_t epoch)
        : window_(window),
          p_(p),
          epoch_(epoch),
          slots_(window.Data(window.rank, RowsOffset(window.bytes))),
          waited_(window, Measured(p)) {
        for (uint32_t i = 0; i < kMaxRanks / 32; ++i) arrived_[i] = 0;
        waited_.Watch(pipe, MOE_FLAG("rows"), kDoneOffset, 1, Share{0, window.ranks}, epoch);
    }

    __aicore__ inline bool OwnTravel() const { return OwnRowsTravel(p_); }
    __aicore__ inline void LoadToken(uint32_t) const {}
    __aicore__ inline uint64_t Row(uint32_t from, uint32_t token, uint32_t slot) {
        if ((arrived_[from / 32] >> (from % 32) & 1) == 0) {
            waited_.Until(from, from);
            LocalTensor<uint32_t> done = window_.Wait(
                MOE_FLAG("rows"), kDoneOffset + from * kBlockBytes, 1, 1, from, epoch_);
            if (!window_.failed) window_.Compare(done, kTagWords, MarkOf(p_), from);
            MOE_SYNC(S_MTE2);
            arrived_[from / 32] |= 1u << (from % 32);
        }
        return slots_ + SlotOffset(p_, token, slot);
    }
    __aicore__ inline void MergeWaitsInto(const WaitsOfCores& waits) {
        waited_.MergeInto(waits.Address(), Waits::kLongest);
    }

 private:
    Window& window_;
    const Parameters& p_;
    uint32_t epoch_;
    uint64_t slots_;
    uint32_t arrived_[kMaxRanks / 32];  // bit r: rank r's rows are here
    Waited waited_;
};

// Returned says where a row is that a rank has returned, by token and slot, and whether own rows
// are among them.
template <typename X, typename Returned>
class Reducer {
 public:
    __aicore__ inline Reducer(TPipe* pipe, Window& window, const Parameters& p,
                              const CombineTensors& t, Returned& returned, uint32_t active)
        : window_(window),
          p_(p),
          t_(t),
          routing_(p, window.rank),
          returned_(returned),
          active_(active) {
        pipe->InitBuffer(
            rows_, 2,
            p.comm_quant ? MaxOf(2 * p.hidden, GroupQuantizer<X>::StoredBytes(p)) : 2 * p.hidden);
        pipe->InitBuffer(outputs_, 1, 2 * p.hidden);
        pipe->InitBuffer(wide_, 4 * p.hidden);
        pipe->InitBuffer(sum_, 4 * p.hidden);
        pipe->InitBuffer(ids_, 4 * p.topk);
        pipe->InitBuffer(weights_, 4 * p.topk);
        pipe->InitBuffer(mask_, p.topk);
        pipe->InitBuffer(own_, kBlockBytes * kMaxTerms);
        if (p.comm_quant || p.const_experts)
            pipe->InitBuffer(work_, GroupQuantizer<X>::WideBytes(p));
        if (p.comm_quant) quantizer_.InitBuffers(pipe, p);
        if (p.const_experts) pipe->InitBuffer(powers_, kBlockBytes);
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

    enum Kind { kPlain, kInt8, kConst };
    struct Term {
        uint64_t row;  // where it is; 0: an own row of expand_x, not yet known. kConst: the number
                       // of the expert
        float weight;
        bool weighted;
        Kind kind;
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
        returned_.LoadToken(token);
        if (pairs)
            Load(mask, At<uint8_t>(t_.mask + static_cast<uint64_t>(token) * p_.topk), p_.topk);
        MOE_SYNC(MTE2_S);
        for (uint32_t k = 0; k < p_.topk; ++k) {
            if (pairs && mask.GetValue(k) == 0) continue;
            any = true;
            int32_t expert = ids.GetValue(k);
            if (expert < 0) continue;
            uint32_t special = static_cast<uint32_t>(expert) -
                               p_.moe_experts;  // zero experts, then copy, then const experts
            if (expert < static_cast<int32_t>(p_.moe_experts)) {
                AddRow(routing_.RankOfExpert(expert), token, k, weights.GetValue(k), true);
            } else if (special - p_.zero_experts < p_.copy_experts) {
                AddLocal(t_.ori_x, token, weights.GetValue(k), true);
            } else if (special - p_.zero_experts - p_.copy_experts < p_.const_experts) {
                Append(special - p_.zero_experts - p_.copy_experts, weights.GetValue(k), true,
                       kConst);
            }
        }
        if (!any) return;
        for (uint32_t s = 0; s < p_.shared_experts; ++s)
            AddRow(routing_.RankOfShared(s), token, p_.topk + s, 1.0f, false);
        if (p_.shared_x) AddLocal(t_.shared_x, token, 1.0f, false);
        FindOwnRows();
    }

    // A row that `from` has returned.
    __aicore__ inline void AddRow(uint32_t from, uint32_t token, uint32_t slot, float weight,
                                  bool weighted) {
        if (from == window_.rank && !returned_.OwnTravel()) {
            Load(own_.Get<uint32_t>()[terms_ * kBlockWords],
                 At<uint32_t>(t_.workspace + OwnRowOffset(p_, token, slot)), 1);
            Append(0, weight, weighted, kPlain);
            return;
        }
        Append(returned_.Row(from, token, slot), weight, weighted, p_.comm_quant ? kInt8 : kPlain);
    }
    __aicore__ inline void AddLocal(uint64_t tensor, uint32_t token, float weight, bool weighted) {
        Append(tensor + 2ull * token * p_.hidden, weight, weighted, kPlain);
    }
    __aicore__ inline void Append(uint64_t row, float weight, bool weighted, Kind kind) {
        term_[terms_++] = Term{row, weight, weighted, kind};
    }
    __aicore__ inline void FindOwnRows() {
        MOE_SYNC(MTE2_S);
        for (uint32_t i = 0; i < terms_; ++i) {
            if (term_[i].row != 0 || term_[i].kind == kConst) continue;
            uint32_t row = own_.Get<uint32_t>().GetValue(i * kBlockWords);
            if (row >= p_.capacity) row = 0;  // dispatch and combine disagree; stay inside expand_x
            term_[i].row = t_.expand_x + 2ull * row * p_.hidden;
        }
    }

    __aicore__ inline void LoadRow(uint64_t from) {
        LocalTensor<X> row = rows_.template AllocTensor<X>();
        Load(row, At<X>(from), p_.hidden);
        rows_.EnQue(row);
    }
    __aicore__ inline void Widen(const LocalTensor<float>& wide) {
        LocalTensor<X> row = rows_.template DeQue<X>();
        AscendC::Cast(wide, row, RoundMode::CAST_NONE, p_.hidden);
        rows_.FreeTensor(row);
        MOE_VBARRIER();
    }

    __aicore__ inline void LoadTerm(const Term& term) {
        if (term.kind == kPlain) LoadRow(term.row);
        if (term.kind != kInt8) return;
        LocalTensor<int8_t> row = rows_.template AllocTensor<int8_t>();
        Load(row, At<int8_t>(term.row), p_.hidden);
        Load(row[CommScaleOffset(p_)], At<int8_t>(term.row + CommScaleOffset(p_)),
             2 * CeilDiv(p_.hidden, 8));
        rows_.EnQue(row);
    }

    __aicore__ inline void AddTerm(const Term& term, uint32_t token) {
        LocalTensor<float> wide = wide_.Get<float>(), sum = sum_.Get<float>();
        if (term.kind == kInt8) {
            LocalTensor<int8_t> row = rows_.template DeQue<int8_t>();
            quantizer_.Dequantize(wide, row, work_.Get<float>());
            rows_.FreeTensor(row);
        } else if (term.kind == kConst) {
            Blend(wide, static_cast<uint32_t>(term.row), token);
        } else {
            Widen(wide);
        }
        if (term.weighted) {
            // Two roundings, product and sum, as the stock kernels: no fused multiply-add.
            AscendC::Muls(wide, wide, term.weight, p_.hidden);
            MOE_VBARRIER();
        }
        AscendC::Add(sum, sum, wide, p_.hidden);
        MOE_VBARRIER();
    }

    // A const expert: s1 * x + s2 * v, where (s1, s2) is the softmax of the scores (alpha_1 . x,
    // alpha_2 . x). The order of the sums is defined by const_expert_rows in
    // ascend_moe/reference/combine.py.
    __aicore__ inline void Blend(const LocalTensor<float>& wide, uint32_t expert, uint32_t token) {
        LocalTensor<float> x = work_.Get<float>(), powers = powers_.Get<float>();
        uint64_t row = 2ull * expert * p_.hidden;
        LoadRow(t_.ori_x + 2ull * token * p_.hidden);
        Widen(x);
        float scores[2];
        for (uint32_t i = 0; i < 2; ++i) {
            LoadRow((i == 0 ? t_.const_alpha_1 : t_.const_alpha_2) + row);
            Widen(wide);
            AscendC::Mul(wide, wide, x, p_.hidden);
            MOE_VBARRIER();
            scores[i] = FoldedSum(wide);
        }
        float largest = scores[0] > scores[1] ? scores[0] : scores[1];
        powers.SetValue(0, scores[0] - largest);
        powers.SetValue(1, scores[1] - largest);
        MOE_SYNC(S_V);
        AscendC::Exp(powers, powers, 2);
        MOE_SYNC(V_S);
        float power_of_x = powers.GetValue(0), power_of_v = powers.GetValue(1);
        float total = power_of_x + power_of_v;
        LoadRow(t_.const_v + row);
        Widen(wide);
        AscendC::Muls(wide, wide, power_of_v / total, p_.hidden);
        AscendC::Muls(x, x, power_of_x / total, p_.hidden);
        MOE_VBARRIER();
        AscendC::Add(wide, x, wide, p_.hidden);
        MOE_VBARRIER();
    }

    // The sum of a row, its upper half folded onto the lower; the last block by scalars, because
    // vector operands start on blocks. The row is lost.
    __aicore__ inline float FoldedSum(const LocalTensor<float>& terms) {
        uint32_t length = p_.hidden, kept = 1;
        while (2 * kept < length) kept *= 2;
        for (; length > kBlockWords; length = kept, kept /= 2) {
            AscendC::Add(terms, terms, terms[kept], length - kept);
            MOE_VBARRIER();
        }
        MOE_SYNC(V_S);
        float sums[kBlockWords];
        for (uint32_t i = 0; i < kBlockWords; ++i) sums[i] = terms.GetValue(i);
        for (uint32_t width = kBlockWords / 2; width > 0; width /= 2) {
            for (uint32_t i = 0; i < width; ++i) sums[i] += sums[i + width];
        }
        MOE_SYNC(S_V);
        return sums[0];
    }

    __aicore__ inline void WriteSum(uint32_t token) {
        LocalTensor<float> sum = sum_.Get<float>();
        AscendC::Duplicate(sum, 0.0f, p_.hidden);
        MOE_VBARRIER();
        if (terms_ > 0) LoadTerm(term_[0]);
        for (uint32_t i = 0; i < terms_; ++i) {
            // The next row is on its way while this one is added; a const expert needs the queue
            // for its own rows.
            bool ahead = term_[i].kind != kConst;
            if (ahead && i + 1 < terms_) LoadTerm(term_[i + 1]);
            AddTerm(term_[i], token);
            if (!ahead && i + 1 < terms_) LoadTerm(term_[i + 1]);
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
    Returned& returned_;
    uint32_t active_;
    uint32_t terms_ = 0;
    Term term_[kMaxTerms];
    // Two deep: WriteSum has the next row queued before it takes this one.
    AscendC::TQue<TPosition::VECIN, 2> rows_;
    AscendC::TQue<TPosition::VECOUT, 1> outputs_;
    Buffer wide_, sum_, work_, powers_, ids_, weights_, mask_, own_;
    GroupQuantizer<X> quantizer_;
};

}  // namespace ascend_moe
