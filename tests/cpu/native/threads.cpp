// Ranks as threads, for the sanitizers: random dispatches and combines through the native steps,
// every result checked. Usage: threads RANKS CALLS SEED
//
// Linked with windows.cpp, or with the library that is made of it.
#include <thread>

#include "calls.h"

extern "C" {
int64_t moe_dispatch(moe::Dispatch* call);
int64_t moe_combine(moe::Combine* call);
}

namespace {

int64_t step(moe::Dispatch& call) { return moe_dispatch(&call); }
int64_t step(moe::Combine& call) { return moe_combine(&call); }

constexpr int64_t kShare = 64 * 1024;

struct World {
    explicit World(int64_t size)
        : ranks(size),
          control(static_cast<int64_t>(sizeof(moe::Control) + size * sizeof(moe::Block))),
          dispatch_area(2 * size * kShare),
          combine_area(2 * size * kShare) {}
    int64_t ranks;
    Memory control, dispatch_area, combine_area;
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

void serve(World& world, int64_t rank, int64_t calls, unsigned seed) {
    const moe::Group group = {reinterpret_cast<int64_t>(world.control.at), world.ranks, rank};
    std::mt19937 together(seed), alone(seed * 977 + static_cast<unsigned>(rank));
    const int64_t half = world.ranks * kShare;
    Area areas[2] = {{reinterpret_cast<int64_t>(world.dispatch_area.at), half},
                     {reinterpret_cast<int64_t>(world.combine_area.at), half}};
    Rank own(group);
    int64_t barrier = 0;
    for (int64_t call = 0; call < calls; ++call) {
        const bool dispatches = own.dispatched < 0 || together() % 2;
        const bool halves = together() % 4 != 0;  // now and then as a large area: one half only
        if (alone() % 8 == 0) std::this_thread::sleep_for(std::chrono::microseconds(alone() % 300));
        if (dispatches) {
            own.draw(call, alone);
            moe::Dispatch op = own.dispatch();
            run(op, areas[0], barrier, halves);
            own.check(op, call);
        } else {
            moe::Combine op = own.combine();
            run(op, areas[1], barrier, halves);
            own.check(op, call);
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
