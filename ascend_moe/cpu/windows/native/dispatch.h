// Dispatch: a rank publishes its tokens and who wants them; receivers fetch rows in final order.
//
// A *lane* is an expert as a sender sees it: MoE expert e is lane e, shared expert s lane E + s. A
// *place* is (source, token, slot), counted through. A sender writes for each of its places which
// lane its token takes there, -1: none. A receiver's rows are the places with its lanes, by lane
// and then by place: that is the final order. Nothing that a peer writes is an address or a size.
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
    int64_t rows_at, scales_at, weights_at, given_at, lanes_at;

    int64_t places_per_rank() const { return max_bs * slots(); }
    int64_t rows_per_rank() const { return max_bs * layout_rows_per_token; }
    // has weights; rows by place, not by token
    int32_t* given(int64_t rank) const { return at<int32_t>(given_at) + 2 * rank; }
    int32_t* lanes(int64_t rank) const { return at<int32_t>(lanes_at) + rank * places_per_rank(); }
    char* row(int64_t rank, int64_t index) const {
        return at<char>(rows_at) + (rank * rows_per_rank() + index) * row_bytes;
    }
    float* scale(int64_t rank) const { return at<float>(scales_at) + rank * rows_per_rank(); }
    float* weight(int64_t rank) const { return at<float>(weights_at) + rank * max_bs * topk; }

    bool valid() { return choices_are_legal(*this); }

    void publish() {
        const int64_t own = ranks().rank;
        const Active active(*this);
        given(own)[0] = expert_scales != 0;
        given(own)[1] = smooth != 0;
        write_lanes(active);
        if (!quantised) {
            memcpy(row(own, 0), pointer<void>(x), bs * row_bytes);
            if (carries_scales) memcpy(scale(own), pointer<void>(scales), bs * sizeof(float));
        } else if (smooth) {
            quantise_places();
        } else {
            quantise_tokens(active);
        }
        if (expert_scales) {
            memcpy(weight(own), pointer<void>(expert_scales), bs * topk * sizeof(float));
        }
    }

    void write_lanes(const Active& active) const {
        const auto* id = pointer<const int32_t>(ids);
        int32_t* lane = lanes(ranks().rank);
        for (int64_t token = 0; token < bs; ++token) {
            for (int64_t k = 0; k < topk; ++k, ++id) {
                *lane++ = active(token, k) && *id < moe_experts ? *id : -1;
            }
            for (int64_t s = 0; s < shared_experts; ++s) {
                *lane++ = active.any(token) ? static_cast<int32_t>(moe_experts + s) : -1;
            }
        }
        for (int64_t none = (max_bs - bs) * slots(); none; --none) *lane++ = -1;
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

    // With smooth factors a row belongs to a place: the factors are those of its expert.
    void quantise_places() const {
        const int64_t own = ranks().rank;
        thread_local std::vector<float> scratch;
        scratch.resize(hidden);
        const auto* from = pointer<const uint16_t>(x);
        const auto* factors = pointer<const float>(scales);
        const bool bf16 = element == static_cast<int64_t>(Element::kBf16);
        for (int64_t place = 0; place < bs * slots(); ++place) {
            const int64_t lane = lanes(own)[place];
            if (lane < 0) continue;
            // shared experts come first in `scales`
            const int64_t at = lane < moe_experts ? shared_experts + lane : lane - moe_experts;
            const float* smoothing = factors + at * hidden;
            auto* to = reinterpret_cast<int8_t*>(row(own, place));
            const uint16_t* source = from + place / slots() * hidden;
            scale(own)[place] =
                bf16 ? quantise_smooth_bf16(to, source, smoothing, scratch.data(), hidden)
                     : quantise_smooth_fp16(to, source, smoothing, scratch.data(), hidden);
        }
    }

    // Which lanes end at this rank.
    struct Here {
        explicit Here(const Dispatch& op) : own(op.ranks().rank), replicas(op.replicas) {
            shares = own < op.shared_ranks;
            experts = static_cast<uint32_t>(shares ? 1 : op.local_experts);
            first = static_cast<uint32_t>(shares ? op.moe_experts + own / replicas
                                                 : (own - op.shared_ranks) * op.local_experts);
        }
        bool from(int64_t source) const { return !shares || source % replicas == own % replicas; }
        // Less than `experts`: the lane ends here.
        uint32_t local(int32_t lane) const { return static_cast<uint32_t>(lane) - first; }
        int64_t own, replicas;
        uint32_t experts, first;
        bool shares;
    };

    // A place of `source` that is a row here, and its number; the lane counts from the first here.
    struct Found {
        int32_t source, place, lane, row;
    };

    // All rows of this rank, by place. Fills in `rows_received` and the counts of the outputs.
    const Found* find_rows() {
        const int64_t sources = ranks().ranks, places = places_per_rank();
        const Here here(*this);
        const auto experts = static_cast<int64_t>(here.experts);
        thread_local std::vector<Found> found;
        thread_local std::vector<int32_t> number;  // by lane and source: rows, then the first row
        number.assign(experts * sources, 0);
        if (found.size() < static_cast<size_t>(sources * places)) found.resize(sources * places);
        int64_t count = 0;
        for (int64_t source = 0; source < sources; ++source) {
            if (!here.from(source)) continue;
            const int32_t* lane = lanes(source);
            for (int64_t place = 0; place < places; ++place) {
                const uint32_t local = here.local(lane[place]);
                found[count] = {static_cast<int32_t>(source), static_cast<int32_t>(place),
                                static_cast<int32_t>(local), 0};
                count += local < here.experts;
            }
        }
        rows_received = count;
        for (int64_t i = 0; i < count; ++i) ++number[found[i].lane * sources + found[i].source];
        auto* prefix = pointer<int32_t>(counts);
        auto* nums = pointer<int64_t>(token_nums);
        int32_t received = 0;
        for (int64_t expert = 0; expert < experts; ++expert) {
            const int32_t before = received;
            for (int64_t source = 0; source < sources; ++source) {
                int32_t& rows = number[expert * sources + source];
                const int32_t begin = received;
                received += rows;
                rows = begin;
                prefix[expert * sources + source] = received;
            }
            nums[expert] = token_nums_type ? received - before : received;
        }
        for (int64_t i = 0; i < count; ++i) {
            found[i].row = number[found[i].lane * sources + found[i].source]++;
        }
        return found.data();
    }

    int64_t receive() {
        const Found* found = find_rows();
        const int64_t received = rows_received;
        if (received > max_rows) return too_many(found);
        if (tp_counts) *pointer<int32_t>(tp_counts) = static_cast<int32_t>(received);
        const bool around_caches = received * row_bytes * ranks().ranks > cache_bytes;
        for (int64_t i = 0; i < received; ++i) fetch(found[i], around_caches);
        if (around_caches) finish_streaming();
        if (handle_of_a2) write_ordinals();
        clear_behind(received);
        return kDone;
    }

    void fetch(const Found& one, bool around_caches) const {
        const int64_t source = one.source, at = one.row;
        const int64_t token = one.place / slots(), slot = one.place % slots();
        const int64_t index = layout_rows_per_token > 1 && given(source)[1] ? one.place : token;
        copy_row(pointer<char>(expand_x) + at * row_bytes, row(source, index), row_bytes,
                 around_caches);
        if (carries_scales) pointer<float>(dynamic_scales)[at] = scale(source)[index];
        if (expand_scales) {
            const bool weighted = given(source)[0] && slot < topk;
            pointer<float>(expand_scales)[at] =
                weighted ? weight(source)[token * topk + slot] : 0.0f;
        }
        if (!handle_of_a2) {
            int32_t* triple = pointer<int32_t>(assist_info) + 3 * at;
            triple[0] = static_cast<int32_t>(source);
            triple[1] = static_cast<int32_t>(token);
            triple[2] = static_cast<int32_t>(slot);
        }
    }

    // More rows than there can be: the rank that sends most of them is wrong.
    int64_t too_many(const Found* found) {
        std::vector<int64_t> rows(ranks().ranks);
        detail = 0;
        for (int64_t i = 0; i < rows_received; ++i) {
            if (++rows[found[i].source] > rows[detail]) detail = found[i].source;
        }
        return kCorrupt;
    }

    // A2: for each pair, how many earlier pairs this rank sends to the same expert.
    void write_ordinals() const {
        auto* ordinals = pointer<int32_t>(assist_info);
        const int32_t* lane = lanes(ranks().rank);
        thread_local std::vector<int32_t> sent;
        sent.assign(moe_experts, 0);
        for (int64_t token = 0; token < bs; ++token, lane += slots()) {
            for (int64_t k = 0; k < topk; ++k) {
                *ordinals++ = lane[k] < 0 ? 0 : sent[lane[k]]++;
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
};

}  // namespace moe
