// Calls of one rank, filled in as Python would, and what their results must be.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "../../../ascend_moe/cpu/windows/native/combine.h"
#include "../../../ascend_moe/cpu/windows/native/dispatch.h"
#include "../../../ascend_moe/cpu/windows/native/interpreter.h"

extern "C" {
// What the library wants of an interpreter, and does not use here.
_object* PyTuple_New(intptr_t) { abort(); }
_object* PyTuple_GetItem(_object*, intptr_t) { abort(); }
int PyTuple_SetItem(_object*, intptr_t, _object*) { abort(); }
_object* PyObject_Type(_object*) { abort(); }
void Py_IncRef(_object*) { abort(); }
void Py_DecRef(_object*) { abort(); }
void PyErr_Clear() { abort(); }
_ts* PyEval_SaveThread() { abort(); }
void PyEval_RestoreThread(_ts*) { abort(); }
}

namespace {

constexpr int64_t kHidden = 96, kTopk = 3, kExpertsPerRank = 2, kMaxBs = 9;

[[noreturn]] void fail(const char* what, int64_t rank, int64_t call) {
    fprintf(stderr, "rank %ld, call %ld: %s\n", static_cast<long>(rank), static_cast<long>(call),
            what);
    exit(1);
}

uint16_t value(int64_t call, int64_t rank, int64_t token, int64_t column) {
    const auto number = static_cast<float>((call * 7 + rank * 5 + token * 3 + column) % 61);
    return moe::Bf16::from_float(number);
}

// Zeroed, aligned as a mapping is; the sanitizer watches its ends.
struct Memory {
    explicit Memory(int64_t size)
        : bytes((size + 63) / 64 * 64), at(static_cast<char*>(aligned_alloc(64, bytes))) {
        memset(at, 0, bytes);
    }
    ~Memory() { free(at); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    int64_t bytes;
    char* at;
};

template <typename T>
int64_t address(const std::vector<T>& of) {
    return reinterpret_cast<int64_t>(of.data());
}

// A rank's tensors.
struct Rank {
    explicit Rank(const moe::Group& its)
        : group(its),
          most(kMaxBs * its.ranks * kExpertsPerRank),
          x(kMaxBs * kHidden),
          rows(most * kHidden),
          sum(kMaxBs * kHidden),
          ids(kMaxBs * kTopk),
          triples(most * 3),
          counts(its.ranks * kExpertsPerRank),
          nums(kExpertsPerRank),
          weights(kMaxBs * kTopk, 0.25f),
          factors(its.ranks * kExpertsPerRank * kHidden, 2.0f),
          scales(most),
          expand_scales(most) {}

    // New tokens and choices.
    void draw(int64_t call, std::mt19937& random) {
        const int64_t experts = group.ranks * kExpertsPerRank;
        bs = 1 + static_cast<int64_t>(random() % kMaxBs);
        for (int64_t token = 0; token < bs; ++token) {
            for (int64_t i = 0; i < kHidden; ++i) {
                x[token * kHidden + i] = value(call, group.rank, token, i);
            }
            const auto first = random() % experts;
            for (int64_t k = 0; k < kTopk; ++k) {
                ids[token * kTopk + k] = static_cast<int32_t>((first + k) % experts);
            }
        }
        dispatched = call;
    }

    void fill(moe::Call& call) const {
        call.group = reinterpret_cast<int64_t>(&group);
        call.bs = call.numbers[0] = bs;
        call.ids = address(ids);
        call.topk = kTopk;
        call.max_bs = kMaxBs;
        call.moe_experts = call.all_experts = group.ranks * kExpertsPerRank;
        call.local_experts = kExpertsPerRank;
        call.replicas = 1;
        call.way = 1;
        call.rows_per_token = 1;
        call.has_global_bs = 1;
        call.bs_number = 0;
        call.mask_number = 1;
        call.slice_us = 20000;
        call.cache_bytes = 1 << 30;
    }

    // quantised: to int8, with weights; every other rank with smooth factors
    moe::Dispatch dispatch(bool quantised = false) const {
        moe::Dispatch op = {};
        fill(op);
        op.x = address(x);
        op.expand_x = address(rows);
        op.assist_info = address(triples);
        op.token_nums = address(nums);
        op.counts = address(counts);
        op.hidden = kHidden;
        op.row_bytes = 2 * kHidden;
        op.token_nums_type = 1;
        op.max_rows = most;
        op.layout_rows_per_token = 1;
        if (quantised) {
            op.quantised = op.carries_scales = 1;
            op.row_bytes = kHidden;
            op.smooth = group.rank % 2;
            op.scales = address(factors);
            op.expert_scales = address(weights);
            op.dynamic_scales = address(scales);
            op.expand_scales = address(expand_scales);
            op.layout_rows_per_token = kTopk;
        }
        const int64_t per_rank = kMaxBs * op.layout_rows_per_token;
        op.given_at = group.ranks * per_rank * op.row_bytes;
        op.lanes_at = op.given_at + group.ranks * 8;
        op.weights_at = op.lanes_at + group.ranks * kMaxBs * kTopk * 4;
        op.scales_at = op.weights_at + group.ranks * kMaxBs * kTopk * 4;
        return op;
    }

    moe::Combine combine() const {
        moe::Combine op = {};
        fill(op);
        op.expand_x = address(rows);
        op.assist_info = address(triples);
        op.send_counts = address(counts);
        op.weights = address(weights);
        op.output = address(sum);
        op.hidden = kHidden;
        op.row_bytes = 2 * kHidden;
        op.row_limit = op.max_rows = most;
        op.prefix_length = group.ranks * kExpertsPerRank;
        op.sent_at = group.ranks * kMaxBs * kTopk * op.row_bytes;
        op.lists_at = op.sent_at + group.ranks * static_cast<int64_t>(sizeof(moe::Sent));
        return op;
    }

    // Of the area that a call needs.
    static int64_t bytes(const moe::Dispatch& op) {
        return op.scales_at + op.ranks().ranks * op.rows_per_rank() * 4;
    }
    static int64_t bytes(const moe::Combine& op) {
        return op.lists_at + op.ranks().ranks * op.max_rows * 12;
    }

    void check(const moe::Dispatch& op, int64_t call) const {
        for (int64_t row = 0; row < op.rows_received; ++row) {
            for (int64_t i = 0; i < kHidden; i += 31) {
                if (rows[row * kHidden + i] !=
                    value(call, triples[3 * row], triples[3 * row + 1], i)) {
                    fail("wrong row", group.rank, call);
                }
            }
        }
    }

    void check(const moe::Combine&, int64_t call) const {
        for (int64_t token = 0; token < bs; ++token) {
            for (int64_t i = 0; i < kHidden; i += 17) {
                const float one = moe::Bf16::to_float(value(dispatched, group.rank, token, i));
                if (sum[token * kHidden + i] != moe::Bf16::from_float(one * 0.75f)) {
                    fail("wrong sum", group.rank, call);
                }
            }
        }
    }

    const moe::Group& group;
    int64_t most, bs = 0, dispatched = -1;
    std::vector<uint16_t> x, rows, sum;
    std::vector<int32_t> ids, triples, counts;
    std::vector<int64_t> nums;
    std::vector<float> weights, factors, scales, expand_scales;
};

}  // namespace
