// Ranks as threads, for the sanitizers: random dispatches and combines through the native steps,
// every result checked. Usage: threads RANKS CALLS SEED
//
// Linked with windows.cpp, or with the library that is made of it.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "../../../ascend_moe/cpu/windows/native/combine.h"
#include "../../../ascend_moe/cpu/windows/native/dispatch.h"
#include "../../../ascend_moe/cpu/windows/native/interpreter.h"

extern "C" {
int64_t moe_dispatch(moe::Dispatch* call);
int64_t moe_combine(moe::Combine* call);

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

int64_t step(moe::Dispatch& call) { return moe_dispatch(&call); }
int64_t step(moe::Combine& call) { return moe_combine(&call); }

constexpr int64_t kHidden = 96, kTopk = 3, kExpertsPerRank = 2, kMaxBs = 9;
constexpr int64_t kShare = 64 * 1024;

struct World {
    explicit World(int64_t size)
        : ranks(size),
          control(sizeof(moe::Control) + size * sizeof(moe::Block)),
          dispatch_area(2 * size * kShare),
          combine_area(2 * size * kShare) {}
    int64_t ranks;
    // Zeroed, aligned as a mapping is.
    struct Memory {
        explicit Memory(size_t bytes)
            : at(static_cast<char*>(aligned_alloc(64, (bytes + 63) / 64 * 64))) {
            memset(at, 0, (bytes + 63) / 64 * 64);
        }
        ~Memory() { free(at); }
        char* at;
    } control, dispatch_area, combine_area;
};

// The bookkeeping of ../../../ascend_moe/cpu/windows/areas.py, in short.
struct Area {
    int64_t memory, half;
    int64_t turn = 0, read_from[2] = {0, 0};
    bool find_free(int64_t barrier, bool halves) {
        if (halves && barrier - 1 <= read_from[turn]) turn ^= 1;
        return barrier - 1 > read_from[turn];
    }
    int64_t base() const { return memory + turn * half; }
    void was_read(int64_t barrier) { read_from[turn] = barrier; }
};

[[noreturn]] void fail(const char* what, int64_t rank, int64_t call) {
    fprintf(stderr, "rank %ld, call %ld: %s\n", static_cast<long>(rank), static_cast<long>(call),
            what);
    exit(1);
}

uint16_t value(int64_t call, int64_t rank, int64_t token, int64_t column) {
    const auto number = static_cast<float>((call * 7 + rank * 5 + token * 3 + column) % 61);
    return moe::Bf16::from_float(number);
}

template <typename Op>
void run(Op& op, Area& area, int64_t& barrier, bool halves) {
    op.phase = moe::kStart;
    op.barrier = barrier + 1;
    op.early = area.find_free(op.barrier, halves);
    op.room = op.ranks().rank % 2;  // both ways
    op.base = area.base();
    int64_t code;
    while ((code = step(op)) != moe::kDone) {
        if (code == moe::kNotPublished) op.phase = moe::kPublish;
        if (code != moe::kNotPublished && code != moe::kWaiting) {
            fail("unexpected code", op.ranks().rank, code);
        }
    }
    barrier = op.barrier;
    area.was_read(barrier);
}

void fill(moe::Call& call, const moe::Group& group) {
    call.group = reinterpret_cast<int64_t>(&group);
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

void serve(World& world, int64_t rank, int64_t calls, unsigned seed) {
    const moe::Group group = {reinterpret_cast<int64_t>(world.control.at), world.ranks, rank};
    std::mt19937 together(seed), alone(seed * 977 + static_cast<unsigned>(rank));
    const int64_t half = world.ranks * kShare;
    Area areas[2] = {{reinterpret_cast<int64_t>(world.dispatch_area.at), half},
                     {reinterpret_cast<int64_t>(world.combine_area.at), half}};
    const int64_t most = kMaxBs * world.ranks * kExpertsPerRank;
    std::vector<uint16_t> x(kMaxBs * kHidden), rows(most * kHidden), sum(kMaxBs * kHidden);
    std::vector<int32_t> ids(kMaxBs * kTopk), triples(most * 3), counts(world.ranks * 2);
    std::vector<int64_t> nums(kExpertsPerRank);
    std::vector<float> weights(kMaxBs * kTopk, 0.25f);
    int64_t barrier = 0, bs = 0, dispatched = -1;
    for (int64_t call = 0; call < calls; ++call) {
        const bool dispatches = dispatched < 0 || together() % 2;
        const bool halves = together() % 4 != 0;  // now and then as a large area: one half only
        if (alone() % 8 == 0) std::this_thread::sleep_for(std::chrono::microseconds(alone() % 300));
        if (dispatches) {
            bs = 1 + static_cast<int64_t>(alone() % kMaxBs);
            for (int64_t token = 0; token < bs; ++token) {
                for (int64_t i = 0; i < kHidden; ++i) {
                    x[token * kHidden + i] = value(call, rank, token, i);
                }
                const auto first = alone() % (world.ranks * kExpertsPerRank);
                for (int64_t k = 0; k < kTopk; ++k) {
                    ids[token * kTopk + k] =
                        static_cast<int32_t>((first + k) % (world.ranks * kExpertsPerRank));
                }
            }
            moe::Dispatch op = {};
            fill(op, group);
            op.bs = bs;
            op.numbers[0] = bs;
            op.ids = reinterpret_cast<int64_t>(ids.data());
            op.x = reinterpret_cast<int64_t>(x.data());
            op.expand_x = reinterpret_cast<int64_t>(rows.data());
            op.assist_info = reinterpret_cast<int64_t>(triples.data());
            op.token_nums = reinterpret_cast<int64_t>(nums.data());
            op.counts = reinterpret_cast<int64_t>(counts.data());
            op.hidden = kHidden;
            op.row_bytes = 2 * kHidden;
            op.token_nums_type = 1;
            op.max_rows = most;
            op.layout_rows_per_token = 1;
            op.given_at = world.ranks * kMaxBs * op.row_bytes;
            op.lanes_at = op.given_at + world.ranks * 8;
            op.scales_at = op.weights_at = op.lanes_at;
            run(op, areas[0], barrier, halves);
            for (int64_t row = 0; row < op.rows_received; ++row) {
                for (int64_t i = 0; i < kHidden; i += 31) {
                    if (rows[row * kHidden + i] !=
                        value(call, triples[3 * row], triples[3 * row + 1], i)) {
                        fail("wrong row", rank, call);
                    }
                }
            }
            dispatched = call;
        } else {
            moe::Combine op = {};
            fill(op, group);
            op.bs = bs;
            op.numbers[0] = bs;
            op.ids = reinterpret_cast<int64_t>(ids.data());
            op.expand_x = reinterpret_cast<int64_t>(rows.data());
            op.assist_info = reinterpret_cast<int64_t>(triples.data());
            op.send_counts = reinterpret_cast<int64_t>(counts.data());
            op.weights = reinterpret_cast<int64_t>(weights.data());
            op.output = reinterpret_cast<int64_t>(sum.data());
            op.hidden = kHidden;
            op.row_bytes = 2 * kHidden;
            op.row_limit = op.max_rows = most;
            op.prefix_length = world.ranks * kExpertsPerRank;
            op.sent_at = world.ranks * kMaxBs * kTopk * op.row_bytes;
            op.lists_at = op.sent_at + world.ranks * static_cast<int64_t>(sizeof(moe::Sent));
            run(op, areas[1], barrier, halves);
            for (int64_t token = 0; token < bs; ++token) {
                for (int64_t i = 0; i < kHidden; i += 17) {
                    const float one = moe::Bf16::to_float(value(dispatched, rank, token, i));
                    if (sum[token * kHidden + i] != moe::Bf16::from_float(one * 0.75f)) {
                        fail("wrong sum", rank, call);
                    }
                }
            }
        }
    }
}

}  // namespace

int main(int count, char** words) {
    if (count != 4) return 2;
    World world(atol(words[1]));
    std::vector<std::thread> threads;
    for (int64_t rank = 0; rank < world.ranks; ++rank) {
        threads.emplace_back(serve, std::ref(world), rank, atol(words[2]),
                             static_cast<unsigned>(atol(words[3])));
    }
    for (auto& thread : threads) thread.join();
    puts("ok");
}
