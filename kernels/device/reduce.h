// Combine, the source's side: sum the rows that have come back in slot order.
//
// Cores share the output to 512 bytes, so that a few tokens keep all of them busy. What a core has
// is a stream of steps: begin a piece of a token, add this row, end it. Rows are loaded some steps
// ahead, over the ends of pieces.
#pragma once

#include "returned_slots.h"

namespace ascend_moe {

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
          active_(active),
          slots_(p.topk + p.shared_experts),
          widest_(WholeRows() || p.hidden < kWidest ? p.hidden : kWidest),
          ahead_(WholeRows() ? 2 : kAhead) {
        pipe->InitBuffer(
            rows_, ahead_,
            p.comm_quant ? MaxOf(2 * p.hidden, GroupQuantizer<X>::StoredBytes(p)) : 2 * widest_);
        pipe->InitBuffer(outputs_, 1, 2 * widest_);
        pipe->InitBuffer(wide_, 4 * widest_);
        pipe->InitBuffer(sum_, 4 * widest_);
        pipe->InitBuffer(ids_, 4 * p.topk * kTokensAtOnce);
        pipe->InitBuffer(weights_, 4 * p.topk * kTokensAtOnce);
        pipe->InitBuffer(mask_, p.topk * kTokensAtOnce);
        pipe->InitBuffer(own_, kBlockBytes * slots_ * kTokensAtOnce);
        if (WholeRows()) pipe->InitBuffer(work_, GroupQuantizer<X>::WideBytes(p));
        if (p.comm_quant) quantizer_.InitBuffers(pipe, p);
        if (p.const_experts) pipe->InitBuffer(powers_, kBlockBytes);
    }

    // This core's share of the tokens, and what is known of them without other ranks and cores:
    // before a wait.
    __aicore__ inline void Prepare() {
        if (WholeRows()) {
            Share share =
                RowShare(p_.batch, RowGroup(2 * p_.hidden, 1), window_.core, window_.cores);
            share_ = {share.begin, share.end, 0, 2 * p_.hidden};
        } else {
            share_ = StretchOf(p_.batch, 2 * p_.hidden, window_.core, window_.cores);
        }
        if (share_.first < share_.end) LoadRouting(share_.first);
    }

    __aicore__ inline void Run() {
        for (uint32_t first = share_.first; first < share_.end && !window_.failed;
             first += kTokensAtOnce) {
            if (first != share_.first) LoadRouting(first);
            MOE_SYNC(MTE2_S);
            const uint32_t count = TokensFrom(first);
            for (uint32_t i = 0; i < count; ++i) used_[i] = SlotsOf(i);
            LoadOwnRows(first, count);
            for (uint32_t i = 0; i < count && !window_.failed; ++i) AddToken(first + i, i);
        }
        while (done_ != planned_) TakeStep();
    }

 private:
    static constexpr uint32_t kWidest = 3584;  // elements of a piece
    static constexpr uint32_t kAhead = 4, kSteps = 8;
    static constexpr uint32_t kAny = 1u << 31;  // the token has an active pair

    enum Kind { kBegin, kPlain, kInt8, kEnd };
    struct Step {
        Kind kind;
        bool weighted;
        float weight;
        uint32_t token, from, length;  // the piece, in elements
    };

    __aicore__ inline static uint32_t MaxOf(uint32_t a, uint32_t b) { return a > b ? a : b; }
    // Scales of int8 rows and the scores of const experts are of whole rows.
    __aicore__ inline bool WholeRows() const { return p_.comm_quant || p_.const_experts; }
    __aicore__ inline uint32_t TokensFrom(uint32_t first) const {
        return share_.end - first < kTokensAtOnce ? share_.end - first : kTokensAtOnce;
    }

    // --- What a token is the sum of, in order: experts 0..K-1, shared experts, shared_expert_x.
    // ---

    __aicore__ inline void LoadRouting(uint32_t first) {
        const uint32_t pairs = TokensFrom(first) * p_.topk;
        const uint64_t pair = static_cast<uint64_t>(first) * p_.topk;
        MOE_SYNC(S_MTE2);
        Load(ids_.Get<int32_t>(), At<int32_t>(t_.expert_ids + 4 * pair), pairs);
        Load(weights_.Get<float>(), At<float>(t_.expert_scales + 4 * pair), pairs);
        if (p_.mask == Mask::kPairs) Load(mask_.Get<uint8_t>(), At<uint8_t>(t_.mask + pair), pairs);
    }
    __aicore__ inline int32_t ExpertOf(uint32_t i, uint32_t k) {
        return ids_.Get<int32_t>().GetValue(i * p_.topk + k);
    }

    // A bit for every slot of the token that takes part.
    __aicore__ inline uint32_t SlotsOf(uint32_t i) {
        const bool masked = p_.mask == Mask::kPairs;
        uint32_t used = masked ? 0 : kAny;
        for (uint32_t k = 0; k < p_.topk; ++k) {
            if (masked && mask_.Get<uint8_t>().GetValue(i * p_.topk + k) == 0) continue;
            used |= kAny;
            if (ExpertOf(i, k) >= 0) used |= 1u << k;
        }
        if (used == 0) return 0;
        return used | ((1u << p_.shared_experts) - 1) << p_.topk;
    }
    // Who returns the row of a slot; kMaxRanks: nobody.
    __aicore__ inline uint32_t RankOf(uint32_t i, uint32_t slot) {
        if (slot >= p_.topk) return routing_.RankOfShared(slot - p_.topk);
        const uint32_t expert = static_cast<uint32_t>(ExpertOf(i, slot));
        return expert < p_.moe_experts ? routing_.RankOfExpert(expert) : kMaxRanks;
    }

    // Where in expand_x the own rows are.
    __aicore__ inline void LoadOwnRows(uint32_t first, uint32_t count) {
        if (first + count > active_) count = first < active_ ? active_ - first : 0;
        if (count == 0) return;
        returned_.LoadTokens(first, count);
        for (uint32_t i = 0; i < count && !returned_.OwnTravel(); ++i) {
            for (uint32_t slot = 0; slot < slots_; ++slot) {
                if ((used_[i] >> slot & 1) == 0 || RankOf(i, slot) != window_.rank) continue;
                Load(own_.Get<uint32_t>()[(i * slots_ + slot) * kBlockWords],
                     At<uint32_t>(t_.workspace + OwnRowOffset(p_, first + i, slot)), 1);
            }
        }
        MOE_SYNC(MTE2_S);
    }

    __aicore__ inline void AddToken(uint32_t token, uint32_t i) {
        const uint32_t begin = share_.From(token) / 2, end = share_.To(token, 2 * p_.hidden) / 2;
        for (uint32_t from = begin; from < end && !window_.failed; from += widest_) {
            const uint32_t length = end - from < widest_ ? end - from : widest_;
            piece_ = {kBegin, false, 0.0f, token, from, length};
            Plan(piece_);
            if (token < active_ && used_[i] != 0) AddRows(token, i);
            piece_.kind = kEnd;
            if (!window_.failed) Plan(piece_);
        }
    }

    // Also when it has given up: whom it has stood for is told for all ranks of the token.
    __aicore__ inline void AddRows(uint32_t token, uint32_t i) {
        for (uint32_t slot = 0; slot < slots_; ++slot) {
            if ((used_[i] >> slot & 1) == 0) continue;
            const bool weighted = slot < p_.topk;
            const float weight =
                weighted ? weights_.Get<float>().GetValue(i * p_.topk + slot) : 1.0f;
            const uint32_t rank = RankOf(i, slot);
            if (rank == window_.rank && !returned_.OwnTravel()) {
                uint32_t row = own_.Get<uint32_t>().GetValue((i * slots_ + slot) * kBlockWords);
                if (row >= p_.capacity)
                    row = 0;  // dispatch and combine disagree; stay inside expand_x
                AddRow(t_.expand_x, row, weight, weighted);
            } else if (rank != kMaxRanks) {
                AddRowAt(returned_.Row(rank, token, slot), weight, weighted, p_.comm_quant);
            } else {
                AddSpecial(token, static_cast<uint32_t>(ExpertOf(i, slot)) - p_.moe_experts,
                           weight);
            }
        }
        if (p_.shared_x) AddRow(t_.shared_x, token, 1.0f, false);
    }

    // Zero experts, then copy, then const experts.
    __aicore__ inline void AddSpecial(uint32_t token, uint32_t special, float weight) {
        const uint32_t copy = special - p_.zero_experts, constant = copy - p_.copy_experts;
        if (special < p_.zero_experts) return;
        if (copy < p_.copy_experts) return AddRow(t_.ori_x, token, weight, true);
        if (constant >= p_.const_experts || window_.failed) return;
        while (done_ != planned_) TakeStep();  // the rows' queue is needed for other rows
        Blend(wide_.Get<float>(), constant, token);
        AddWide(weight, true);
    }

    // --- The steps ---

    __aicore__ inline void AddRow(uint64_t tensor, uint32_t row, float weight, bool weighted) {
        AddRowAt(tensor + 2ull * row * p_.hidden, weight, weighted, false);
    }
    __aicore__ inline void AddRowAt(uint64_t row, float weight, bool weighted, bool int8) {
        if (window_.failed) return;
        while (loaded_ == ahead_) TakeStep();
        ++loaded_;
        if (int8) {
            LocalTensor<int8_t> to = rows_.template AllocTensor<int8_t>();
            Load(to, At<int8_t>(row), p_.hidden);
            Load(to[CommScaleOffset(p_)], At<int8_t>(row + CommScaleOffset(p_)),
                 2 * CeilDiv(p_.hidden, 8));
            rows_.EnQue(to);
        } else {
            LoadPart(row, piece_.from, piece_.length);
        }
        Step step = piece_;
        step.kind = int8 ? kInt8 : kPlain;
        step.weight = weight;
        step.weighted = weighted;
        Plan(step);
    }
    __aicore__ inline void LoadPart(uint64_t row, uint32_t from, uint32_t length) {
        LocalTensor<X> to = rows_.template AllocTensor<X>();
        Load(to, At<X>(row + 2ull * from), length);
        rows_.EnQue(to);
    }

    __aicore__ inline void Plan(const Step& step) {
        if (planned_ - done_ == kSteps) TakeStep();
        step_[planned_++ % kSteps] = step;
    }
    __aicore__ inline void TakeStep() {
        const Step step = step_[done_++ % kSteps];
        LocalTensor<float> wide = wide_.Get<float>();
        length_ = step.length;
        if (step.kind == kBegin) {
            AscendC::Duplicate(sum_.Get<float>(), 0.0f, length_);
            MOE_VBARRIER();
        } else if (step.kind == kEnd) {
            Write(step.token, step.from);
        } else {
            --loaded_;
            if (step.kind == kInt8) {
                LocalTensor<int8_t> row = rows_.template DeQue<int8_t>();
                quantizer_.Dequantize(wide, row, work_.Get<float>());
                rows_.FreeTensor(row);
            } else {
                Widen(wide);
            }
            AddWide(step.weight, step.weighted);
        }
    }

    __aicore__ inline void Widen(const LocalTensor<float>& wide) {
        LocalTensor<X> row = rows_.template DeQue<X>();
        AscendC::Cast(wide, row, RoundMode::CAST_NONE, length_);
        rows_.FreeTensor(row);
        MOE_VBARRIER();
    }
    __aicore__ inline void AddWide(float weight, bool weighted) {
        LocalTensor<float> wide = wide_.Get<float>(), sum = sum_.Get<float>();
        if (weighted) {
            // Two roundings, product and sum, as the stock kernels: no fused multiply-add.
            AscendC::Muls(wide, wide, weight, length_);
            MOE_VBARRIER();
        }
        AscendC::Add(sum, sum, wide, length_);
        MOE_VBARRIER();
    }
    __aicore__ inline void Write(uint32_t token, uint32_t from) {
        LocalTensor<X> out = outputs_.template AllocTensor<X>();
        AscendC::Cast(out, sum_.Get<float>(), RoundMode::CAST_RINT, length_);
        outputs_.EnQue(out);
        out = outputs_.template DeQue<X>();
        Store(At<X>(t_.out + 2ull * (static_cast<uint64_t>(token) * p_.hidden + from)), out,
              length_);
        outputs_.FreeTensor(out);
    }

    // A const expert: s1 * x + s2 * v, where (s1, s2) is the softmax of the scores (alpha_1 . x,
    // alpha_2 . x). The order of the sums is defined by const_expert_rows in
    // ascend_moe/reference/combine.py.
    __aicore__ inline void Blend(const LocalTensor<float>& wide, uint32_t expert, uint32_t token) {
        LocalTensor<float> x = work_.Get<float>(), powers = powers_.Get<float>();
        uint64_t row = 2ull * expert * p_.hidden;
        LoadPart(t_.ori_x + 2ull * token * p_.hidden, 0, p_.hidden);
        Widen(x);
        float scores[2];
        for (uint32_t i = 0; i < 2; ++i) {
            LoadPart((i == 0 ? t_.const_alpha_1 : t_.const_alpha_2) + row, 0, p_.hidden);
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
        LoadPart(t_.const_v + row, 0, p_.hidden);
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

    Window& window_;
    const Parameters& p_;
    const CombineTensors& t_;
    Routing routing_;
    Returned& returned_;
    const uint32_t active_, slots_;
    const uint32_t widest_, ahead_;  // elements of a piece; rows loaded and not yet added
    Stretch share_{0, 0, 0, 0};
    uint32_t used_[kTokensAtOnce];
    Step piece_, step_[kSteps];
    uint32_t planned_ = 0, done_ = 0, loaded_ = 0, length_ = 0;
    AscendC::TQue<TPosition::VECIN, kAhead> rows_;
    AscendC::TQue<TPosition::VECOUT, 1> outputs_;
    Buffer wide_, sum_, work_, powers_, ids_, weights_, mask_, own_;
    GroupQuantizer<X> quantizer_;
};

}  // namespace ascend_moe
