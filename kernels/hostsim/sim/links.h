// What cores of all ranks share in simulated time: device memories, and the links between dies.
// Each is a server that takes one chunk after the other, in the order in which they come.
#pragma once

#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

#include "../hostsim.h"

namespace hostsim {

using Picoseconds = int64_t;

struct Server {
    Picoseconds free = 0;
    // The end of a chunk that comes at `from` and keeps the server busy for so long.
    Picoseconds Take(Picoseconds from, Picoseconds busy) {
        free = (from > free ? from : free) + busy;
        return free;
    }
};

// How one rank reaches the memory of another.
struct Path {
    int distance;  // index of hostsim_machine::link; -1: its own memory
    Picoseconds latency;
    double core_rate;  // bytes per nanosecond that one core moves this way
};

class Links {
 public:
    explicit Links(const hostsim_machine& machine) : machine_(machine) {}

    Path Between(int core_rank, int memory_rank, bool load) const;
    // A chunk that a core of one rank reads from, or writes to, the memory of another, and that
    // comes to the link now: when it is across, and in memory, or, if there is a port on the other
    // side, when it comes to that. Who comes first goes first, so the port is asked then.
    struct Step {
        Picoseconds at;
        bool port;
    };
    Step Leave(const Path& path, int core_rank, int memory_rank, bool load, uint64_t bytes,
               Picoseconds now);
    // When a chunk that comes to that port now is across, and in memory.
    Picoseconds Reach(const Path& path, int core_rank, int memory_rank, bool load, uint64_t bytes,
                      Picoseconds now);

    // The same between the network cards of two ranks: when the sender's is free again, and when
    // the bytes are across.
    struct Part {
        Picoseconds left, across;
    };
    Part Send(int from, int to, uint64_t bytes, Picoseconds now);

    // Bytes that have left and reached each die over its links, in slices of time, for a trace.
    static constexpr Picoseconds kSlice = 500'000;
    struct Sent {
        std::vector<uint64_t> out, in;
    };
    bool counts = false;
    const std::map<int, Sent>& Counted() const { return sent_; }

 private:
    struct Die {
        Server out, in, memory, card_out, card_in;
    };
    Die& Of(int rank) {
        if (dies_.size() <= static_cast<size_t>(rank)) dies_.resize(rank + 1);
        return dies_[rank];
    }
    void Count(std::vector<uint64_t>& slices, Picoseconds at, uint64_t bytes);

    const hostsim_machine machine_;
    std::vector<Die> dies_;
    std::unordered_map<uint64_t, Server> pairs_;  // links of their own: from rank << 32 | to rank
    std::map<int, Sent> sent_;
};

}  // namespace hostsim
