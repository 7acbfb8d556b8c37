// Dispatch, the source's index: for every destination the list of its rows and their counts, which
// are also the flag that the rows are staged. Who sends what when: announce.h.
#pragma once

#include "routing.h"
#include "stage.h"

namespace ascend_moe {

// Of a number below 2^31. bisheng converts no unsigned variable to floating point in device code.
__aicore__ inline float FloatOf(uint32_t number) {
    return static_cast<float>(static_cast<int32_t>(number));
}

// Words of the counts of one source on one destination: the total, the mark of the call, then one
// count per expert, six to a tagged block.
struct CountsLayout {
    uint32_t blocks;
    __aicore__ inline explicit CountsLayout(const Parameters& p) : blocks(CountsBlocks(p)) {}
    __aicore__ inline uint64_t Offset(uint32_t parity, uint32_t source) const {
        return kCountsOffset + parity * kCountsBytes +
               static_cast<uint64_t>(source) * blocks * kBlockBytes;
    }
    static constexpr uint32_t kTotal = 0, kMark = 1, kExperts = 2;
    // The word of entry i (kExperts + e: expert e) inside the blocks of one source.
    __aicore__ inline static uint32_t Word(uint32_t i) {
        return i / kPayloadWords * kBlockWords + kTagWords + i % kPayloadWords;
    }
};

class Publisher {
 public:
    // With counts of so many destinations at a time.
    __aicore__ inline Publisher(TPipe* pipe, Window& window, const Parameters& p,
                                const DispatchTensors& t, uint32_t epoch, uint32_t active,
                                uint32_t kept)
        : window_(window),
          p_(p),
          t_(t),
          routing_(p, window.rank),
          layout_(p),
          epoch_(epoch),
          active_(active) {
        pairs_ = active * p.topk;
        padded_ = AlignUp(pairs_ == 0 ? 1 : pairs_, 64);
        pipe->InitBuffer(ids_, 4 * padded_);
        pipe->InitBuffer(all_pairs_, 4 * padded_);
        pipe->InitBuffer(chosen_ids_, 4 * padded_);
        pipe->InitBuffer(chosen_pairs_, 4 * padded_);
        pipe->InitBuffer(at_least_, padded_ / 8);
        pipe->InitBuffer(below_, padded_ / 8);
        pipe->InitBuffer(counts_, kept * layout_.blocks * kBlockBytes);
    }

 protected:
    __aicore__ inline LocalTensor<uint32_t> Counts(uint32_t kept = 0) {
        return counts_.Get<uint32_t>()[kept * layout_.blocks * kBlockWords];
    }

    // all_pairs[i] = token << 8 | slot of pair i.
    __aicore__ inline void NumberPairs() {
        LocalTensor<int32_t> pairs = all_pairs_.Get<int32_t>(),
                             tokens = chosen_pairs_.Get<int32_t>();
        LocalTensor<float> index = chosen_ids_.Get<float>();
        // Exact: i + 1/2 is at least 1/(2K) away from a multiple of K, far more than fp32 rounds
        // here.
        AscendC::CreateVecIndex(index, 0.5f, padded_);
        MOE_VBARRIER();
        AscendC::Muls(index, index, 1.0f / FloatOf(p_.topk), padded_);
        MOE_VBARRIER();
        AscendC::Cast(tokens, index, RoundMode::CAST_FLOOR, padded_);
        AscendC::CreateVecIndex(pairs, 0, padded_);
        MOE_VBARRIER();
        AscendC::Muls(tokens, tokens, static_cast<int32_t>((1 << kSlotBits) - p_.topk), padded_);
        MOE_VBARRIER();
        AscendC::Add(pairs, pairs, tokens, padded_);
    }

    // The counts and the list of a peer; the number of its rows. The buffers of the list are free
    // again once the copies to the last peer are done; every pipe learns that from MTE3. Those of
    // the counts are the caller's to keep apart.
    __aicore__ inline uint32_t Prepare(uint32_t peer, uint32_t kept = 0) {
        MOE_SYNC(MTE3_V);
        LocalTensor<uint32_t> counts = Counts(kept);
        for (uint32_t i = 0; i < layout_.blocks * kBlockWords; ++i) {
            uint32_t word = i % kBlockWords;
            counts.SetValue(i, word == 0 ? window_.nonce : word == 1 ? epoch_ : 0);
        }
        uint32_t rows = 0;
        if (active_ > 0) {
            if (peer >= routing_.shared_ranks) {
                rows = ListExperts((peer - routing_.shared_ranks) * routing_.local_experts, counts);
            } else if (routing_.Serves(peer)) {
                rows = ListShared(p_.topk + peer / routing_.Replicas());
            }
        }
        counts.SetValue(CountsLayout::Word(CountsLayout::kTotal), rows);
        counts.SetValue(CountsLayout::Word(CountsLayout::kMark), MarkOf(p_));
        if (peer < routing_.shared_ranks)
            counts.SetValue(CountsLayout::Word(CountsLayout::kExperts), rows);
        return rows;
    }

    // The pairs of experts first .. first + L - 1 by expert, tokens ascending, into ids_; counts
    // per expert. Returns their number.
    __aicore__ inline uint32_t ListExperts(uint32_t first, const LocalTensor<uint32_t>& counts) {
        LocalTensor<float> ids = ids_.Get<float>(), chosen = chosen_ids_.Get<float>();
        LocalTensor<int32_t> raw = chosen_ids_.Get<int32_t>(), local = raw,
                             pairs = chosen_pairs_.Get<int32_t>();
        MOE_SYNC(V_MTE2);
        Load(raw, At<int32_t>(t_.expert_ids), pairs_);
        AscendC::Duplicate(ids, -1.0f, padded_);
        MOE_VBARRIER();
        MOE_SYNC(MTE2_V);
        AscendC::Cast(ids, raw, RoundMode::CAST_NONE, pairs_);
        MOE_VBARRIER();
        if (p_.mask == Mask::kPairs) DropInactive(ids);
        LocalTensor<uint16_t> at_least = at_least_.Get<uint16_t>(), below = below_.Get<uint16_t>();
        AscendC::CompareScalar(at_least_.Get<uint8_t>(), ids, FloatOf(first), AscendC::CMPMODE::GE,
                               padded_);
        AscendC::CompareScalar(below_.Get<uint8_t>(), ids, FloatOf(first + routing_.local_experts),
                               AscendC::CMPMODE::LT, padded_);
        MOE_VBARRIER();
        AscendC::And(below, below, at_least, padded_ / 16);
        MOE_VBARRIER();
        uint64_t kept = 0;
        LocalTensor<uint32_t> pattern = below_.Get<uint32_t>();
        AscendC::GatherMask(chosen, ids, pattern, true, padded_,
                            AscendC::GatherMaskParams{1, 1, 0, 0}, kept);
        AscendC::GatherMask(pairs, all_pairs_.Get<int32_t>(), pattern, true, padded_,
                            AscendC::GatherMaskParams{1, 1, 0, 0}, kept);
        // Only repeated ids in one row could give more; the receiver has no room for them.
        uint32_t rows =
            static_cast<uint32_t>(kept) < ListRows(p_) ? static_cast<uint32_t>(kept) : ListRows(p_);
        if (rows == 0) return 0;
        MOE_VBARRIER();
        AscendC::Adds(chosen, chosen, -FloatOf(first), rows);
        MOE_VBARRIER();
        AscendC::Cast(local, chosen, RoundMode::CAST_RINT, rows);
        MOE_SYNC(V_S);
        SortByExpert(local, pairs, rows, counts);
        return rows;
    }

    // Ids of inactive pairs become -1.
    __aicore__ inline void DropInactive(const LocalTensor<float>& ids) {
        LocalTensor<uint8_t> bytes = chosen_pairs_.Get<uint8_t>();
        LocalTensor<half> halves = chosen_ids_.Get<half>();
        LocalTensor<float> active = chosen_pairs_.Get<float>();
        Load(bytes, At<uint8_t>(t_.mask), pairs_);
        MOE_SYNC(MTE2_V);
        AscendC::Cast(halves, bytes, RoundMode::CAST_NONE, pairs_);
        AscendC::Adds(ids, ids, 1.0f, pairs_);
        MOE_VBARRIER();
        AscendC::Cast(active, halves, RoundMode::CAST_NONE, pairs_);
        MOE_VBARRIER();
        AscendC::Mul(ids, ids, active, pairs_);
        MOE_VBARRIER();
        AscendC::Adds(ids, ids, -1.0f, pairs_);
        MOE_VBARRIER();
    }

    // A counting sort by the scalar unit: a destination's share of the pairs is small. The counts
    // turn into the experts' first places, move on to their ends, and turn back into counts.
    __aicore__ inline void SortByExpert(const LocalTensor<int32_t>& experts,
                                        const LocalTensor<int32_t>& pairs, uint32_t rows,
                                        const LocalTensor<uint32_t>& counts) {
        LocalTensor<int32_t> sorted = ids_.Get<int32_t>();
        for (uint32_t i = 0; i < rows; ++i) {
            uint32_t word = CountsLayout::Word(CountsLayout::kExperts + experts.GetValue(i));
            counts.SetValue(word, counts.GetValue(word) + 1);
        }
        uint32_t first = 0;
        for (uint32_t e = 0; e < routing_.local_experts; ++e) {
            uint32_t word = CountsLayout::Word(CountsLayout::kExperts + e),
                     count = counts.GetValue(word);
            counts.SetValue(word, first);
            first += count;
        }
        for (uint32_t i = 0; i < rows; ++i) {
            uint32_t word = CountsLayout::Word(CountsLayout::kExperts + experts.GetValue(i)),
                     to = counts.GetValue(word);
            sorted.SetValue(to, pairs.GetValue(i));
            counts.SetValue(word, to + 1);
        }
        uint32_t begin = 0;
        for (uint32_t e = 0; e < routing_.local_experts; ++e) {
            uint32_t word = CountsLayout::Word(CountsLayout::kExperts + e),
                     end = counts.GetValue(word);
            counts.SetValue(word, end - begin);
            begin = end;
        }
    }

    // Every active token, for a shared expert.
    __aicore__ inline uint32_t ListShared(uint32_t slot) {
        LocalTensor<int32_t> sorted = ids_.Get<int32_t>();
        LocalTensor<uint8_t> mask = chosen_pairs_.Get<uint8_t>();
        bool pairs = p_.mask == Mask::kPairs;
        if (pairs) {
            MOE_SYNC(V_MTE2);
            Load(mask, At<uint8_t>(t_.mask), pairs_);
            MOE_SYNC(MTE2_S);
        }
        MOE_SYNC(V_S);  // the list of a peer that got nothing ends with vector work
        uint32_t rows = 0;
        for (uint32_t token = 0; token < active_; ++token) {
            bool any = !pairs;
            for (uint32_t k = 0; k < p_.topk && !any; ++k)
                any = mask.GetValue(token * p_.topk + k) != 0;
            if (any) sorted.SetValue(rows++, static_cast<int32_t>(PackPair(token, slot)));
        }
        return rows;
    }

    // The list that Prepare has made, to where it is read or sent from.
    __aicore__ inline void StorePairs(uint64_t list, uint32_t rows) {
        Store(At<int32_t>(list), ids_.Get<int32_t>(), rows);
    }

    Window& window_;
    const Parameters& p_;
    const DispatchTensors& t_;
    Routing routing_;
    CountsLayout layout_;
    uint32_t epoch_, active_, pairs_, padded_;
    Buffer ids_, all_pairs_, chosen_ids_, chosen_pairs_, at_least_, below_, counts_;
};

}  // namespace ascend_moe
