// What dispatch and combine have in common: the steps of a call, and reading the tokens' choices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "protocol.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace moe {

// Why a step returns. Everything but kDone and kWaiting is for Python to decide.
enum Code : int64_t {
    kDone = 0,
    kWaiting,       // the time slice is over: look after the peers, then step again
    kLook,          // the statements are not simply equal
    kNotPublished,  // the area is too small: make room, then step again
    kInvalid,       // this rank's own tensors; nothing was said or written
    kCorrupt,       // what a peer wrote cannot be: `detail` says who
    kBadRows,       // rows are missing or come twice: see Combine
    kUnmapped,      // memory of the rank `detail` is not mapped here: map it, then step again
    kReadInPlace,   // done but for one barrier more; rows may be bad as well
};

enum Phase : int64_t { kStart, kFirstBarrier, kJudged, kPublish, kSecondBarrier };

enum Comparison : int64_t { kAny, kEqual, kIsRank };

// The ctypes structures in ../fields.py spell the same fields; addresses are int64.
struct Call {
    // for each call
    int64_t phase, barrier, early, room, base;
    int64_t ids, mask;
    // of this kind of call
    int64_t group, bs, topk, max_bs, mask_dims, ordered_mask;
    int64_t moe_experts, all_experts, local_experts, shared_experts, shared_ranks, replicas;
    int64_t way, rows_per_token, mask_number, bs_number, has_global_bs;
    int64_t slice_us, cache_bytes;
    int64_t detail;
    int64_t numbers[kNumbers];
    int64_t comparison[kNumbers];

    const Group& ranks() const { return *reinterpret_cast<const Group*>(group); }
    int64_t slots() const { return topk + shared_experts; }
    template <typename T>
    T* at(int64_t offset) const {
        return reinterpret_cast<T*>(base + offset);
    }
};

template <typename T>
inline T* pointer(int64_t address) {
    return reinterpret_cast<T*>(address);
}

// Which (token, k) take part. A 1-D mask is counted, as the kernels do.
struct Active {
    explicit Active(const Call& call)
        : mask(pointer<const uint8_t>(call.mask)), dims(call.mask_dims), topk(call.topk) {
        tokens = call.bs;
        if (dims == 1) {
            tokens = 0;
            for (int64_t token = 0; token < call.bs; ++token) tokens += mask[token] != 0;
        }
    }
    bool operator()(int64_t token, int64_t k) const {
        return dims == 2 ? mask[token * topk + k] != 0 : token < tokens;
    }
    bool any(int64_t token) const {
        if (dims != 2) return token < tokens;
        for (int64_t k = 0; k < topk; ++k) {
            if (mask[token * topk + k]) return true;
        }
        return false;
    }
    const uint8_t* mask;
    int64_t dims, topk, tokens;
};

// Rules at the price of reading the ids once. Sets whether a token is masked.
inline bool choices_are_legal(Call& call) {
    const Active active(call);
    const auto* ids = pointer<const int32_t>(call.ids);
    bool masks = false, gap = false;
    for (int64_t token = 0; call.mask_dims && token < call.bs; ++token) {
        const bool here = call.mask_dims == 1 ? active.mask[token] != 0 : active.any(token);
        if (call.ordered_mask && here && gap) return false;
        gap = gap || !here;
    }
    for (int64_t i = 0, n = call.mask_dims == 2 ? call.bs * call.topk : 0; i < n; ++i) {
        masks = masks || !active.mask[i];
    }
    masks = masks || (call.mask_dims == 1 && active.tokens < call.bs);
    call.numbers[call.mask_number] = masks;

    for (int64_t token = 0; token < call.bs; ++token) {
        const int32_t* chosen = ids + token * call.topk;
        for (int64_t k = 0; k < call.topk; ++k) {
            if (!active(token, k)) continue;
            if (chosen[k] < 0 || chosen[k] >= call.all_experts) return false;
            for (int64_t before = 0; before < k; ++before) {
                if (chosen[before] == chosen[k] && active(token, before)) return false;
            }
        }
    }
    return true;
}

// What this rank says about its call.
inline void state(const Call& call, Statement& own) {
    own.refused = 0;
    own.way = call.way;
    own.early = call.early;
    own.rows_per_token = call.rows_per_token;
    memcpy(own.numbers, call.numbers, sizeof own.numbers);
}

// Whether nothing stands against the call; the details of what does are found in Python.
class Agreement {
 public:
    explicit Agreement(const Call& own) : call(own), masks(own.numbers[own.mask_number]) {}

    bool allows(int64_t rank, const Statement& one) {
        if (one.refused || one.way != call.way || one.rows_per_token != call.rows_per_token ||
            one.early != call.early) {
            return false;
        }
        for (int64_t i = 0; i < kNumbers; ++i) {
            const int64_t wanted = call.comparison[i] == kIsRank ? rank : call.numbers[i];
            if (call.comparison[i] != kAny && one.numbers[i] != wanted) return false;
        }
        uneven = uneven || one.numbers[call.bs_number] != call.bs;
        masks = masks || one.numbers[call.mask_number];
        return true;
    }

    // After all ranks.
    bool holds() const { return !uneven || (call.has_global_bs && !masks); }

 private:
    const Call& call;
    bool uneven = false, masks;
};

inline bool agrees(const Call& call) {
    const Group& group = call.ranks();
    Agreement agreement(call);
    for (int64_t rank = 0; rank < group.ranks; ++rank) {
        const int32_t left = group.block(rank).left.load();
        if (left && reached(static_cast<int32_t>(call.barrier), left)) return false;
        if (!agreement.allows(rank, group.block(rank).statement[call.barrier & 1])) return false;
    }
    return agreement.holds();
}

// Runs a call until it is done or Python has to look. `Op` has valid(), publish() and receive().
template <typename Op>
int64_t step(Op& op) {
    const Group& group = op.ranks();
    switch (op.phase) {
        case kStart:
            if (!op.valid()) return kInvalid;
            state(op, group.own(static_cast<int32_t>(op.barrier)));
            if (op.early) op.publish();
            arrive(group, static_cast<int32_t>(op.barrier));
            op.phase = kFirstBarrier;
            [[fallthrough]];
        case kFirstBarrier:
            if (!wait(group, static_cast<int32_t>(op.barrier), op.slice_us)) return kWaiting;
            if (!agrees(op)) return kLook;
            [[fallthrough]];
        case kJudged:
            if (op.early) return op.receive();
            if (!op.room) return kNotPublished;
            [[fallthrough]];
        case kPublish:
            op.publish();
            op.barrier += 1;
            arrive(group, static_cast<int32_t>(op.barrier));
            op.phase = kSecondBarrier;
            [[fallthrough]];
        default:
            if (!wait(group, static_cast<int32_t>(op.barrier), op.slice_us)) return kWaiting;
            return op.receive();
    }
}

// Past the caches: for rows that are larger in all than what the cores share.
inline void copy_around_caches(char* to, const char* from, int64_t bytes) {
#ifdef __SSE2__
    const int64_t head = -reinterpret_cast<int64_t>(to) & 15;
    if (bytes < 256) {
        memcpy(to, from, bytes);
        return;
    }
    memcpy(to, from, head);
    int64_t at = head;
    for (; at + 64 <= bytes; at += 64) {
        const auto* source = reinterpret_cast<const __m128i*>(from + at);
        auto* target = reinterpret_cast<__m128i*>(to + at);
        const __m128i a = _mm_loadu_si128(source), b = _mm_loadu_si128(source + 1);
        const __m128i c = _mm_loadu_si128(source + 2), d = _mm_loadu_si128(source + 3);
        _mm_stream_si128(target, a);
        _mm_stream_si128(target + 1, b);
        _mm_stream_si128(target + 2, c);
        _mm_stream_si128(target + 3, d);
    }
    memcpy(to + at, from + at, bytes - at);
#else
    memcpy(to, from, bytes);
#endif
}

// What was streamed past the caches is in memory before anything that follows.
inline void finish_streaming() {
#ifdef __SSE2__
    _mm_sfence();
#endif
}

inline void copy_row(char* to, const char* from, int64_t bytes, bool around_caches) {
    if (around_caches) {
        copy_around_caches(to, from, bytes);
    } else {
        memcpy(to, from, bytes);
    }
}

}  // namespace moe
