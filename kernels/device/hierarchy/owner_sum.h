// Combine, the owner: the sums of all servers, ascending, rounded once.
#pragma once

#include "return_rows.h"
#include "sum_format.h"

namespace ascend_moe {

template <typename X>
class OwnerSum {
 public:
    __aicore__ inline OwnerSum(TPipe* pipe, Window& window, const Servers& servers,
                               const Parameters& p, const HierarchyCombineTensors& t,
                               uint32_t epoch, uint32_t active)
        : pipe_(pipe),
          window_(window),
          servers_(servers),
          topology_(servers.topology),
          p_(p),
          t_(t),
          epoch_(epoch),
          active_(active) {
        pipe->InitBuffer(rows_, 2, p.comm_quant ? Quantizer::StoredBytes(p) : 2 * p.hidden);
        pipe->InitBuffer(outputs_, 1, 2 * p.hidden);
        pipe->InitBuffer(where_, topology_.servers * kBatch * 4);
        pipe->InitBuffer(wide_, kWide * p.hidden);
        pipe->InitBuffer(total_, kWide * p.hidden);
        if (p.comm_quant) quantizer_.InitBuffers(pipe, p);
    }

    // Every core waits for all of the rail, and reads what head its sums have.
    __aicore__ inline void Wait() {
        Waited waited(window_, Servers::Measured(window_, p_));
        waited.Watch(pipe_, MOE_FLAG("sums"), kDoneOffset, 1, Share{0, window_.ranks}, epoch_);
        servers_.UntilRail(waited);
        waited.MergeInto(t_.performance_info, p_.waits);
        for (uint32_t i = 1; i < topology_.servers && !window_.failed; ++i) {
            uint32_t server = (topology_.server + i) % topology_.servers,
                     peer = servers_.Rail(server);
            window_.Wait(MOE_FLAG("sums"), kDoneOffset + peer * kBlockBytes, 1, 1, peer, epoch_);
            if (window_.failed) return;
            LocalTensor<uint32_t> head = where_.Get<uint32_t>();
            Load(head, At<uint32_t>(Sums(server) + kSumsHead), kBlockWords);
            MOE_SYNC(MTE2_S);
            if (head.GetValue(kSumsMark) != MarkOf(p_)) window_.Fail(kOtherCall, peer);
        }
    }

    __aicore__ inline void Run() {
        Share share = RowShare(p_.batch, RowGroup(2 * p_.hidden, 1), window_.core, window_.cores);
        for (uint32_t first = share.begin; first < share.end; first += kBatch)
            AddBatch(first, Smaller(kBatch, share.end - first));
    }

 private:
    using Quantizer = SumQuantizer<X>;
    using Real = typename Quantizer::Real;
    static constexpr bool kInPlace = Quantizer::kIsHalf;  // int8 in fp16: the total is the output
    static constexpr uint32_t kWide = sizeof(float), kBatch = 64;

    __aicore__ inline uint64_t Sums(uint32_t server) const {
        return window_.Data(window_.rank, InputSumsOffset(window_.bytes, p_, topology_, server));
    }

    __aicore__ inline void AddBatch(uint32_t first, uint32_t count) {
        LocalTensor<uint32_t> where = where_.Get<uint32_t>();
        MOE_SYNC(S_MTE2);
        for (uint32_t server = 0; server < topology_.servers; ++server) {
            const uint32_t word =
                HandleSums(p_, topology_, window_.ranks) + server * SentWords(p_) + first;
            Load(where[server * kBatch], At<uint32_t>(t_.ep_send_counts + 4ull * word), count);
        }
        MOE_SYNC(MTE2_S);
        for (uint32_t i = 0; i < count; ++i) {
            uint32_t servers[kMaxServers], rows = 0;
            for (uint32_t server = 0; server < topology_.servers; ++server) {
                uint32_t one_more = where.GetValue(server * kBatch + i);
                if (first + i < active_ && one_more != 0 && one_more <= p_.max_batch)
                    servers[rows++] = server;
            }
            Start();
            if (rows > 0) LoadSum(servers[0], where, i);
            for (uint32_t row = 0; row < rows; ++row) {
                if (row + 1 < rows) LoadSum(servers[row + 1], where, i);
                AddSum();
            }
            Write(first + i);
        }
    }

    __aicore__ inline void LoadSum(uint32_t server, const LocalTensor<uint32_t>& where,
                                   uint32_t i) {
        const uint32_t row = where.GetValue(server * kBatch + i) - 1;
        LocalTensor<int8_t> sum = rows_.template AllocTensor<int8_t>();
        Load(sum, At<int8_t>(Sums(server) + kSumsRows + static_cast<uint64_t>(row) * SumBytes(p_)),
             SumBytes(p_));
        rows_.EnQue(sum);
    }

    // The output's buffer also serves as scratch until the total is written.
    __aicore__ inline void Start() {
        out_ = outputs_.template AllocTensor<X>();
        if (p_.comm_quant && kInPlace) {
            AscendC::Duplicate(out_.template ReinterpretCast<Real>(), static_cast<Real>(0.0f),
                               p_.hidden);
        } else {
            AscendC::Duplicate(total_.Get<float>(), 0.0f, p_.hidden);
        }
        MOE_VBARRIER();
    }

    __aicore__ inline void AddSum() {
        LocalTensor<int8_t> row = rows_.template DeQue<int8_t>();
        LocalTensor<float> wide = wide_.Get<float>();
        if (!p_.comm_quant) {
            AscendC::Cast(wide, row.template ReinterpretCast<X>(), RoundMode::CAST_NONE, p_.hidden);
            MOE_VBARRIER();
            AscendC::Add(total_.Get<float>(), total_.Get<float>(), wide, p_.hidden);
            MOE_VBARRIER();
        } else if constexpr (kInPlace) {
            quantizer_.AddTo(out_.template ReinterpretCast<Real>(), row, wide_.Get<half>(),
                             wide_.Get<Real>());
        } else {
            quantizer_.AddTo(total_.Get<Real>(), row, out_.template ReinterpretCast<half>(),
                             wide_.Get<Real>());
        }
        rows_.FreeTensor(row);
    }

    __aicore__ inline void Write(uint32_t token) {
        if (!(p_.comm_quant && kInPlace))
            AscendC::Cast(out_, total_.Get<float>(), RoundMode::CAST_RINT, p_.hidden);
        outputs_.EnQue(out_);
        out_ = outputs_.template DeQue<X>();
        Store(At<X>(t_.out + 2ull * token * p_.hidden), out_, p_.hidden);
        outputs_.FreeTensor(out_);
    }

    TPipe* pipe_;
    Window& window_;
    const Servers& servers_;
    const Topology& topology_;
    const Parameters& p_;
    const HierarchyCombineTensors& t_;
    uint32_t epoch_, active_;
    LocalTensor<X> out_;
    // Two deep: AddBatch has the next sum queued before it takes this one.
    AscendC::TQue<TPosition::VECIN, 2> rows_;
    AscendC::TQue<TPosition::VECOUT, 1> outputs_;
    Buffer where_, wide_, total_;
    Quantizer quantizer_;
};

}  // namespace ascend_moe
