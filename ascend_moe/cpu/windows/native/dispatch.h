// Dispatch: a rank publishes its tokens and who wants them; receivers fetch rows in final order.
//
// A *lane* is an expert as a sender sees it: MoE expert e is lane e, shared expert s lane E + s. A
// sender sorts its pairs (token, slot) by lane; a receiver then finds its rows as neighbours.
#pragma once

#include <vector>

#include "arithmetic.h"
#include "call.h"

namespace moe {

struct Dispatch : Call {
    // for each call
    int64_t x, scales, expert_scales;
    int64_t expand_x, dynamic_scales, assist_info, token_nums, counts, tp_counts, expand_scales;
    int64_t rows_before;    // of the call that had these outputs before
    int64_t rows_received;  // set by receive()
    // of this kind of call
    int64_t hidden, element, row_bytes, quantised, smooth, carries_scales, handle_of_a2;
    int64_t token_nums_type, max_rows;
    int64_t layout_rows_per_token;
    // offsets in the area; each is an array with an equal share per rank
    int64_t rows_at, scales_at, weights_at, table_at, pairs_at;

    int64_t lanes() const { return moe_experts + shared_experts; }
    int64_t rows_per_rank() const { return max_bs * layout_rows_per_token; }
    // has weights, rows by pair, then where each lane begins
    int32_t* table(int64_t rank) const { return at<int32_t>(table_at) + rank * (lanes() + 3); }
    int32_t* begin(int64_t rank) const { return table(rank) + 2; }
    int32_t* pairs(int64_t rank) const {
        return at<int32_t>(pairs_at) + 2 * rank * max_bs * slots();
    }
    char* row(int64_t rank, int64_t index) const {
        return at<char>(rows_at) + (rank * rows_per_rank() + index) * row_bytes;
    }
    float* scale(int64_t rank) const { return at<float>(scales_at) + rank * rows_per_rank(); }
    float* weight(int64_t rank) const { return at<float>(weights_at) + rank * max_bs * topk; }

    bool valid() { return choices_are_legal(*this); }

    void publish() {
        const int64_t own = ranks().rank;
        const Active active(*this);
        const auto* id = pointer<const int32_t>(ids);
        table(own)[0] = expert_scales != 0;
        table(own)[1] = smooth != 0;
        sort_pairs(active, id);
        if (!quantised) {
            memcpy(row(own, 0), pointer<void>(x), bs * row_bytes);
            if (carries_scales) memcpy(scale(own), pointer<void>(scales), bs * sizeof(float));
        } else if (smooth) {
            quantise_pairs();
        } else {
            quantise_tokens(active);
        }
        if (expert_scales) {
            memcpy(weight(own), pointer<void>(expert_scales), bs * topk * sizeof(float));
        }
    }

    // Counting sort of (token, slot) by lane.
    void sort_pairs(const Active& active, const int32_t* id) const {
        thread_local std::vector<int32_t> next;
        next.assign(lanes() + 1, 0);
        for (int64_t token = 0; token < bs; ++token) {
            for (int64_t k = 0; k < topk; ++k) {
                const int32_t expert = id[token * topk + k];
                if (active(token, k) && expert < moe_experts) ++next[expert + 1];
            }
            if (shared_experts && active.any(token)) {
                for (int64_t s = 0; s < shared_experts; ++s) ++next[moe_experts + s + 1];
            }
        }
        for (int64_t lane = 0; lane < lanes(); ++lane) next[lane + 1] += next[lane];
        memcpy(begin(ranks().rank), next.data(), (lanes() + 1) * sizeof(int32_t));
        int32_t* to = pairs(ranks().rank);
        const auto put = [&](int64_t lane, int64_t token, int64_t slot) {
            int32_t* pair = to + 2 * next[lane]++;
            pair[0] = static_cast<int32_t>(token);
            pair[1] = static_cast<int32_t>(slot);
        };
        for (int64_t token = 0; token < bs; ++token) {
            for (int64_t k = 0; k < topk; ++k) {
                const int32_t expert = id[token * topk + k];
                if (active(token, k) && expert < moe_experts) put(expert, token, k);
            }
            if (shared_experts && active.any(token)) {
                for (int64_t s = 0; s < shared_experts; ++s) put(moe_experts + s, token, topk + s);
            }
        }
    }

    void quantise_tokens(const Active& active) const {
        const int64_t own = ranks().rank;
        const auto* from = pointer<const uint16_t>(x);
        const bool bf16 = element == static_cast<int64_t>(Element::kBf16);
        for (int64_t token = 0; token < bs; ++token) {
            if (!active.any(token)) continue;
            auto* to = reinterpret_cast<int8_t*>(row(own, token));
            const uint16_t* source = from + token * hidden;
            scale(own)[token] =
                bf16 ? quantise_bf16(to, source, hidden) : quantise_fp16(to, source, hidden);
        }
    }

    // With smooth factors a row belongs to a pair: the factors are those of its expert.
    void quantise_pairs() const {
        const int64_t own = ranks().rank;
        thread_local std::vector<float> scratch;
        scratch.resize(hidden);
        const auto* from = pointer<const uint16_t>(x);
        const auto* factors = pointer<const float>(scales);
        const bool bf16 = element == static_cast<int64_t>(Element::kBf16);
        for (int64_t lane = 0; lane < lanes(); ++lane) {
            // shared experts come first in `scales`
            const int64_t at = lane < moe_experts ? shared_experts + lane : lane - moe_experts;
            const float* smoothing = factors + at * hidden;
            for (int32_t pair = begin(own)[lane]; pair < begin(own)[lane + 1]; ++pair) {
                auto* to = reinterpret_cast<int8_t*>(row(own, pair));
                const uint16_t* source = from + pairs(own)[2 * pair] * hidden;
                scale(own)[pair] =
                    bf16 ? quantise_smooth_bf16(to, source, smoothing, scratch.data(), hidden)
                         : quantise_smooth_fp16(to, source, smoothing, scratch.data(), hidden);
            }
        }
    }

    // The lane of `source` that arrives here for the local expert; -1: none.
    int64_t lane_here(int64_t expert, int64_t source) const {
        const int64_t own = ranks().rank;
        if (own >= shared_ranks) return (own - shared_ranks) * local_experts + expert;
        if (source % replicas != own % replicas) return -1;
        return moe_experts + own / replicas;
    }

    int64_t receive() {
        const int64_t own = ranks().rank, sources = ranks().ranks;
        const int64_t experts = own < shared_ranks ? 1 : local_experts;
        auto* prefix = pointer<int32_t>(counts);
        auto* nums = pointer<int64_t>(token_nums);
        const int64_t most_pairs = max_bs * slots();
        int64_t received = 0;
        for (int64_t expert = 0; expert < experts; ++expert) {
            const int64_t before = received;
            for (int64_t source = 0; source < sources; ++source) {
                const int64_t lane = lane_here(expert, source);
                if (lane >= 0) {
                    const int32_t from = begin(source)[lane], to = begin(source)[lane + 1];
                    if (from < 0 || to < from || to > most_pairs) return corrupt(source);
                    received += to - from;
                    if (received > max_rows) return corrupt(source);
                }
                prefix[expert * sources + source] = static_cast<int32_t>(received);
            }
            nums[expert] = token_nums_type ? received - before : received;
        }
        rows_received = received;
        if (tp_counts) *pointer<int32_t>(tp_counts) = static_cast<int32_t>(received);
        const bool around_caches = received * row_bytes * sources > cache_bytes;
        int64_t at = 0;
        for (int64_t expert = 0; expert < experts; ++expert) {
            for (int64_t source = 0; source < sources; ++source) {
                const int64_t lane = lane_here(expert, source);
                if (lane < 0) continue;
                const int32_t from = begin(source)[lane], to = begin(source)[lane + 1];
                for (int32_t pair = from; pair < to; ++pair, ++at) {
                    if (!fetch(source, pair, at, around_caches)) return corrupt(source);
                }
            }
        }
        if (around_caches) finish_streaming();
        if (handle_of_a2) write_ordinals();
        clear_behind(received);
        return kDone;
    }

    bool fetch(int64_t source, int32_t pair, int64_t at, bool around_caches) const {
        const int32_t token = pairs(source)[2 * pair], slot = pairs(source)[2 * pair + 1];
        if (token < 0 || token >= max_bs || slot < 0 || slot >= slots()) return false;
        const int64_t index = table(source)[1] ? pair : token;
        if (index >= rows_per_rank()) return false;
        copy_row(pointer<char>(expand_x) + at * row_bytes, row(source, index), row_bytes,
                 around_caches);
        if (carries_scales) pointer<float>(dynamic_scales)[at] = scale(source)[index];
        if (expand_scales) {
            const bool weighted = table(source)[0] && slot < topk;
            pointer<float>(expand_scales)[at] =
                weighted ? weight(source)[token * topk + slot] : 0.0f;
        }
        if (!handle_of_a2) {
            int32_t* triple = pointer<int32_t>(assist_info) + 3 * at;
            triple[0] = static_cast<int32_t>(source);
            triple[1] = token;
            triple[2] = slot;
        }
        return true;
    }

    // A2: for each pair, how many earlier pairs this rank sends to the same expert.
    void write_ordinals() const {
        auto* ordinals = pointer<int32_t>(assist_info);
        memset(ordinals, 0, bs * topk * sizeof(int32_t));
        const int64_t own = ranks().rank;
        for (int64_t lane = 0; lane < moe_experts; ++lane) {
            for (int32_t pair = begin(own)[lane]; pair < begin(own)[lane + 1]; ++pair) {
                const int32_t* which = pairs(own) + 2 * pair;
                ordinals[which[0] * topk + which[1]] = pair - begin(own)[lane];
            }
        }
    }

    // Rows that nobody sent read as zero, whatever these outputs held before.
    void clear_behind(int64_t received) const {
        if (rows_before <= received) return;
        const int64_t more = rows_before - received;
        memset(pointer<char>(expand_x) + received * row_bytes, 0, more * row_bytes);
        if (carries_scales) {
            memset(pointer<float>(dynamic_scales) + received, 0, more * sizeof(float));
        }
        if (expand_scales) {
            memset(pointer<float>(expand_scales) + received, 0, more * sizeof(float));
        }
        if (!handle_of_a2) {
            memset(pointer<int32_t>(assist_info) + 3 * received, 0, 3 * more * sizeof(int32_t));
        }
    }

    int64_t corrupt(int64_t source) {
        detail = source;
        return kCorrupt;
    }
};

}  // namespace moe
