// Combine, the expert's side: every row of expand_x back to the rank it came from.
#pragma once

#include "int8.h"
#include "return_order.h"

namespace ascend_moe {

// The GM operands of combine, in the order of the kernel's arguments.
struct CombineTensors {
    uint64_t expand_x, expert_ids, assist_info, ep_send_counts, expert_scales, tp_send_counts, mask,
        shared_x, elastic_info;
    uint64_t ori_x, const_alpha_1, const_alpha_2, const_v;
    uint64_t out, performance_info, workspace;
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
        : window_(window), p_(p), t_(t), rows_offset_(RowsOffset(window.bytes)), order_(window, p) {
        order_.InitBuffers(pipe);
        pipe->InitBuffer(triples_, kBlockBytes * kBatchBlocks);
        pipe->InitBuffer(own_, kBlockBytes * kNotes);
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

    // Own rows last: they are only noted.
    __aicore__ inline void Run() {
        order_.Read(t_.ep_send_counts);
        const uint32_t noted = OwnRowsTravel(p_) ? 0 : order_.Own();
        const uint32_t sent = order_.Total() - noted;
        if (p_.comm_quant) {
            Share share = ShareOf(sent, window_.core, window_.cores);
            Return({share.begin, share.end, 0, 2 * p_.hidden});
        } else {
            Return(UnitsOf(sent, 2 * p_.hidden, window_.core, window_.cores));
        }
        Share share = ShareOf(noted, window_.core, window_.cores);
        Return({sent + share.begin, sent + share.end, 0, 2 * p_.hidden});
    }

 private:
    // Rows whose triples are loaded together, each run of them to a block of its own.
    static constexpr uint32_t kBatchRows = 64, kBatchRuns = 32,
                              kFirstRuns = 2,  // sooner
        kBatchBlocks = kBatchRuns + kBatchRows * 12 / kBlockBytes;

    static constexpr uint32_t kNotes = 16;  // that may be on their way

    // Places of the order.
    __aicore__ inline void Return(const Stretch& stretch) {
        if (stretch.first == stretch.end) return;
        order_.Seek(stretch.first);
        for (uint32_t place = stretch.first; place < stretch.end;) {
            const uint32_t rows =
                ReadBatch(stretch.end - place, place == stretch.first ? kFirstRuns : kBatchRuns);
            if (rows == 0) return;
            ReturnBatch(place, stretch);
            place += rows;
        }
    }

    __aicore__ inline uint32_t ReadBatch(uint32_t most, uint32_t most_runs) {
        LocalTensor<uint32_t> triples = triples_.Get<uint32_t>();
        uint32_t rows = 0, at = 0;
        if (most > kBatchRows) most = kBatchRows;
        MOE_SYNC(S_MTE2);
        for (runs_ = 0; runs_ < most_runs && rows < most; ++runs_) {
            const RowRun run = order_.Next(most - rows);
            if (run.count == 0) break;
            Load(triples[at], At<uint32_t>(t_.assist_info + 12ull * run.first), 3 * run.count);
            run_[runs_] = {run, at, window_.Data(run.source, rows_offset_)};
            rows += run.count;
            at += AlignUp(3 * run.count, kBlockWords);
        }
        MOE_SYNC(MTE2_S);
        return rows;
    }

    __aicore__ inline void ReturnBatch(uint32_t place, const Stretch& stretch) {
        LocalTensor<uint32_t> triples = triples_.Get<uint32_t>();
        for (uint32_t r = 0; r < runs_; ++r) {
            const Loaded run = run_[r];
            for (uint32_t i = 0; i < run.rows.count; ++i, ++place) {
                const uint32_t triple = run.triples + 3 * i, row = run.rows.first + i;
                const uint32_t source = triples.GetValue(triple),
                               token = triples.GetValue(triple + 1),
                               slot = triples.GetValue(triple + 2);
                if (source >= window_.ranks || token >= p_.max_batch ||
                    slot >= p_.topk + p_.shared_experts)
                    continue;
                if (source == window_.rank && !OwnRowsTravel(p_)) {
                    Note(row, t_.workspace + OwnRowOffset(p_, token, slot));
                } else {
                    const uint32_t begin = stretch.From(place);
                    const uint64_t slots =
                        source == run.rows.source ? run.slots : window_.Data(source, rows_offset_);
                    Send(slots + SlotOffset(p_, token, slot) + begin,
                         t_.expand_x + 2ull * row * p_.hidden + begin,
                         stretch.To(place, 2 * p_.hidden) - begin);
                }
            }
        }
    }

    __aicore__ inline void Note(uint32_t row, uint64_t to) {
        LocalTensor<uint32_t> own = own_.Get<uint32_t>();
        if (noted_ == kNotes) {
            MOE_SYNC(MTE3_S);
            noted_ = 0;
        }
        own.SetValue(noted_ * kBlockWords, row);
        MOE_SYNC(S_MTE3);
        Store(At<uint32_t>(to), own[noted_ * kBlockWords], 1);
        ++noted_;
    }

    __aicore__ inline void Send(uint64_t to, uint64_t row, uint32_t bytes) {
        if (!p_.comm_quant) {
            LocalTensor<uint8_t> buffer = rows_.template AllocTensor<uint8_t>();
            Load(buffer, At<uint8_t>(row), bytes);
            rows_.EnQue(buffer);
            buffer = rows_.template DeQue<uint8_t>();
            Store(At<uint8_t>(to), buffer, bytes);
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

    struct Loaded {
        RowRun rows;
        uint32_t triples;  // where the first is, in words
        uint64_t slots;    // of the source, asked for while the triples come
    };

    const Window& window_;
    const Parameters& p_;
    const CombineTensors& t_;
    uint64_t rows_offset_;
    ReturnOrder order_;
    uint32_t runs_ = 0, noted_ = 0;
    Loaded run_[kBatchRuns];
    Buffer triples_, own_, wide_, work_;
    AscendC::TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> rows_;
    AscendC::TQue<TPosition::VECIN, 1> inputs_;
    AscendC::TQue<TPosition::VECOUT, 1> outputs_;
    GroupQuantizer<X> quantizer_;
};

}  // namespace ascend_moe
