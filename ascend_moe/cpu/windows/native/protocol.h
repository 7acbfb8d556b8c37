// The memory that the ranks of a group share, and the barrier: see ../__init__.py for the protocol.
//
// Every byte of a control block and of a rank's own region is written by that rank alone. The other
// side of each struct is a numpy dtype in ../control.py or a ctypes structure in ../fields.py.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>

namespace moe {

constexpr int kNumbers = 24;
constexpr int kReasonBytes = 256;

// What a rank says about its call before anybody reads its rows.
struct Statement {
    int64_t arrived_ns;
    int64_t refused;
    int64_t way;             // which steps follow; all ranks must take the same
    int64_t early;           // the rows are published already
    int64_t rows_per_token;  // of the region that the rank publishes; 1, or one per pair
    int64_t numbers[kNumbers];
    char reason[kReasonBytes];
};

struct alignas(64) Block {
    std::atomic<int32_t> flag;    // number of the last barrier the rank arrived at
    std::atomic<int32_t> left;    // not 0: number of the barrier at which the rank gave up
    std::atomic<int32_t> mapped;  // 1: has mapped the area that is on offer, 2: cannot
    std::atomic<int32_t> blamed;  // why it left: 1 + a rank that is gone, or -1 - one that is late
    Statement statement[2] __attribute__((aligned(64)));  // by parity of the barrier's number
};

struct alignas(64) Control {
    std::atomic<int32_t> generation __attribute__((aligned(64)));  // last barrier that is complete
    int64_t offer[8] __attribute__((aligned(64)));                 // an area to map, from rank 0
};

// One process's view of its group.
struct Group {
    int64_t control;  // address of Control; Block[ranks] follow
    int64_t ranks;
    int64_t rank;

    Control& shared() const { return *reinterpret_cast<Control*>(control); }
    Block& block(int64_t of) const {
        return reinterpret_cast<Block*>(control + static_cast<int64_t>(sizeof(Control)))[of];
    }
    Statement& own(int32_t barrier) const { return block(rank).statement[barrier & 1]; }
};

inline int64_t now_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

inline long futex(std::atomic<int32_t>& word, int operation, int32_t value, const timespec* limit) {
    return syscall(SYS_futex, reinterpret_cast<int32_t*>(&word), operation, value, limit, nullptr,
                   0);
}

// Numbers wrap around; two that are compared are never far apart.
inline bool reached(int32_t number, int32_t barrier) { return number - barrier >= 0; }

// If all have arrived, completes the barrier; every rank may do so, and whoever sees it does.
inline bool complete_if_all_arrived(const Group& group, int32_t barrier) {
    for (int64_t rank = 0; rank < group.ranks; ++rank) {
        if (!reached(group.block(rank).flag.load(), barrier)) return false;
    }
    group.shared().generation.store(barrier);
    futex(group.shared().generation, FUTEX_WAKE, INT_MAX, nullptr);
    return true;
}

// Sequentially consistent stores and loads: of two ranks that arrive last, at least one sees both.
inline void arrive(const Group& group, int32_t barrier) {
    group.own(barrier).arrived_ns = now_ns();
    group.block(group.rank).flag.store(barrier);
    complete_if_all_arrived(group, barrier);
}

// True when the barrier is complete, false when the time is over. A rank that died just before it
// would have woken the others costs them one time slice.
inline bool wait(const Group& group, int32_t barrier, int64_t microseconds) {
    std::atomic<int32_t>& generation = group.shared().generation;
    const int64_t end = now_ns() + microseconds * 1000;
    for (;;) {
        const int32_t seen = generation.load();
        if (reached(seen, barrier)) return true;
        const int64_t left = end - now_ns();
        if (left <= 0) return complete_if_all_arrived(group, barrier);
        const timespec limit = {left / 1000000000, left % 1000000000};
        futex(generation, FUTEX_WAIT, seen, &limit);
    }
}

}  // namespace moe
