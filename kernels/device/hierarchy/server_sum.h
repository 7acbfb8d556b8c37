// Combine, the relay: when all mates have returned their rows, one sum per token, in the order that
// dispatch decided, for the owner in each server.
#pragma once

#include "return_rows.h"
#include "sum_format.h"

namespace ascend_moe {

// How many tokens a list of relayed tokens has: it ends with 0, or where it is full.
__aicore__ inline uint32_t TokensOf(const LocalTensor<uint32_t>& sent, const Parameters& p) {
    uint32_t tokens = 0;
    while (tokens < p.max_batch && sent.GetValue(tokens) != 0) ++tokens;
    return tokens;
}

template <typename X>
class ServerSum {
 public:
    __aicore__ inline ServerSum(TPipe* pipe, const Window& window, const Parameters& p,
                                const HierarchyCombineTensors& t)
        : window_(window), p_(p), t_(t) {
        pipe->InitBuffer(rows_, 2, 2 * p.hidden);
        pipe->InitBuffer(outputs_, 1, p.comm_quant ? Quantizer::StoredBytes(p) : 2 * p.hidden);
        pipe->InitBuffer(wide_, kWide * AlignUp(p.hidden, Quantizer::kPadding));
        pipe->InitBuffer(sum_, kWide * AlignUp(p.hidden, Quantizer::kPadding));
        pipe->InitBuffer(sent_, 4 * SentWords(p));
        pipe->InitBuffer(weights_, kBlockBytes * p.topk);
        if (p.comm_quant) quantizer_.InitBuffers(pipe, p);
    }

    // This core's share of the tokens that the owner in `server` has sent, into `sums`.
    __aicore__ inline void Run(uint32_t server, uint64_t sums) {
        LocalTensor<uint32_t> sent = sent_.Get<uint32_t>();
        MOE_SYNC(S_MTE2);
        Load(sent,
             At<uint32_t>(t_.ep_send_counts +
                          4ull * (HandleRelayed(p_, window_.ranks) + server * SentWords(p_))),
             SentWords(p_));
        MOE_SYNC(MTE2_S);
        Share share = ShareOf(TokensOf(sent, p_), window_.core, window_.cores);
        for (uint32_t i = share.begin; i < share.end; ++i) {
            uint32_t word = sent.GetValue(i), token = word & kTokenMask;
            if (token >= p_.max_batch) continue;
            Add(server, token, word >> kPlacesShift);
            Write(sums + kSumsRows + static_cast<uint64_t>(i) * SumBytes(p_));
        }
    }

 private:
    using Quantizer = SumQuantizer<X>;
    static constexpr uint32_t kWide = sizeof(float), kMaxPlaces = 16;

    __aicore__ inline uint64_t Slot(uint32_t server, uint32_t token, uint32_t place) const {
        return window_.Data(
            window_.rank, ServerSlotsOffset(window_.bytes) + ServerSlot(p_, server, token, place));
    }

    // The weights of all rows first, so that no row waits for one.
    __aicore__ inline void Add(uint32_t server, uint32_t token, uint32_t places) {
        LocalTensor<float> wide = wide_.Get<float>(), sum = sum_.Get<float>(),
                           weights = weights_.Get<float>();
        uint32_t order[kMaxPlaces], rows = 0;
        MOE_SYNC(S_MTE2);
        for (uint32_t place = 0; place < p_.topk; ++place) {
            if ((places >> place & 1) == 0) continue;
            Load(weights[rows * kBlockWords],
                 At<float>(Slot(server, token, place) + 2ull * p_.hidden), kBlockWords);
            order[rows++] = place;
        }
        MOE_SYNC(MTE2_S);
        if (rows > 0) LoadRow(Slot(server, token, order[0]));
        for (uint32_t i = 0; i < rows; ++i) {
            if (i + 1 < rows) LoadRow(Slot(server, token, order[i + 1]));
            LocalTensor<X> row = rows_.template DeQue<X>();
            AscendC::Cast(wide, row, RoundMode::CAST_NONE, p_.hidden);
            rows_.FreeTensor(row);
            MOE_VBARRIER();
            float weight = weights.GetValue(i * kBlockWords);
            if (i == 0) {
                AscendC::Muls(sum, wide, weight, p_.hidden);
            } else {
                AscendC::Axpy(sum, wide, weight, p_.hidden);
            }
            MOE_VBARRIER();
        }
    }
    __aicore__ inline void LoadRow(uint64_t from) {
        LocalTensor<X> row = rows_.template AllocTensor<X>();
        Load(row, At<X>(from), p_.hidden);
        rows_.EnQue(row);
    }

    __aicore__ inline void Write(uint64_t to) {
        LocalTensor<float> sum = sum_.Get<float>();
        LocalTensor<int8_t> out = outputs_.template AllocTensor<int8_t>();
        if (p_.comm_quant) {
            QuantizeSum(out);
        } else {
            AscendC::Cast(out.template ReinterpretCast<X>(), sum, RoundMode::CAST_RINT, p_.hidden);
        }
        outputs_.EnQue(out);
        out = outputs_.template DeQue<int8_t>();
        Store(At<int8_t>(to), out, SumBytes(p_));
        outputs_.FreeTensor(out);
    }

    __aicore__ inline void QuantizeSum(const LocalTensor<int8_t>& out) {
        LocalTensor<float> sum = sum_.Get<float>();
        const uint32_t behind = AlignUp(p_.hidden, Quantizer::kPadding) - p_.hidden;
        if constexpr (!Quantizer::kIsHalf) {
            if (behind > 0) {
                AscendC::Duplicate(sum[p_.hidden], 0.0f, behind);
                MOE_VBARRIER();
            }
            quantizer_.Quantize(out, sum, wide_.Get<half>());
        } else {
            LocalTensor<half> rounded = wide_.Get<half>();
            if (behind > 0) AscendC::Duplicate(rounded[p_.hidden], static_cast<half>(0.0f), behind);
            AscendC::Cast(rounded, sum, RoundMode::CAST_RINT, p_.hidden);
            MOE_VBARRIER();
            quantizer_.Quantize(out, rounded, rounded);
        }
    }

    const Window& window_;
    const Parameters& p_;
    const HierarchyCombineTensors& t_;
    // Two deep: Add has the next row queued before it takes this one.
    AscendC::TQue<TPosition::VECIN, 2> rows_;
    AscendC::TQue<TPosition::VECOUT, 1> outputs_;
    Buffer wide_, sum_, sent_, weights_;
    Quantizer quantizer_;
};

}  // namespace ascend_moe
