// The shared memory of one communicator: who is there, where the barriers stand, and every rank's
// window.
//
// One anonymous file (memfd) per communicator, made by the rank that creates the root info. Its
// token names that process and descriptor; the other ranks open it as /proc/<pid>/fd/<fd>. Nothing
// is ever visible in /dev/shm, so its size does not matter, and the memory goes away with the last
// process however that process ends.
//
// Only windows within reach of a core are mapped (standin.h, Place); what lies in the others comes
// by Read, as a message would bring it.
//
// Each rank holds a file lock on the byte of its number. The kernel drops it when the process dies,
// so a rank that waits can tell a slow peer from a dead one.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "standin.h"

namespace standin {

constexpr uint32_t kMaxRanks = 1024;

// HCCL keeps 1 MB of its own behind the buffers of a rank.
constexpr size_t kExpBytes = size_t{1} << 20;

// What a rank is about to do in a collective, for the check that all ranks do the same.
struct CollectiveCall {
    uint32_t kind;
    uint32_t type;
    uint32_t reduce_op;
    uint32_t root;
    uint64_t count;
};

// The control block of a rank. Zero-initialised, like all of the file.
struct alignas(64) RankState {
    std::atomic<uint32_t> joined;
    std::atomic<uint32_t>
        arrived[3];  // per barrier channel: how many barriers this rank has entered
    uint32_t buffer_mb;
    Place place;
    uint32_t more;  // collectives: another round is needed
    CollectiveCall call;
};

struct Header {
    uint64_t nonce;
    std::atomic<uint32_t> tick;  // futex word: changes whenever anybody makes progress
    RankState ranks[kMaxRanks];
};

// One direction of a pair of ranks in point-to-point messages, see point_to_point.cpp.
struct alignas(16) Channel {
    std::atomic<uint32_t> sent;
    std::atomic<uint32_t> received;
    uint64_t bytes;
};

// The users of barriers on a communicator, which may run side by side: collectives and kernels on
// their streams, and the host that builds links.
enum BarrierChannel : uint32_t { kCollectives = 0, kKernels = 1, kLinks = 2 };

class Segment {
 public:
    // The token of a new segment owned by this process; empty, with an error text, on failure.
    static std::string Create();
    // Opens the segment as `rank` of `size`, waits for all ranks. On failure error() is not empty.
    Segment(const std::string& token, uint32_t rank, uint32_t size, Place place,
            uint32_t buffer_mb);
    ~Segment();
    Segment(const Segment&) = delete;
    Segment& operator=(const Segment&) = delete;

    const std::string& error() const { return error_; }
    RankState& state(uint32_t rank) const { return header_->ranks[rank]; }
    Channel& channel(uint32_t from, uint32_t to) const { return channels_[from * size_ + to]; }
    // Null when the rank is out of reach.
    char* window(uint32_t rank) const { return windows_[rank]; }
    // `bytes` of the window of any rank.
    void Read(uint32_t rank, size_t offset, void* to, size_t bytes) const;
    // The same where it lies, if that is within reach; else what came into `memory`.
    const char* Read(uint32_t rank, size_t offset, size_t bytes, std::vector<char>* memory) const;
    // The window of any rank for the network card of this process, mapped once it is asked for;
    // null with an error text if that fails.
    char* ForCard(uint32_t rank);
    size_t window_bytes() const { return window_bytes_; }
    // What is mapped of a window: kExpBytes more.
    size_t mapped_bytes() const { return window_bytes_ + kExpBytes; }

    // Waits for all ranks; an empty string, or who is missing. Calls on one channel must not
    // overlap.
    std::string Barrier(BarrierChannel channel);
    // Waits until done(); `peers` are watched meanwhile. An empty string, or which peer is gone or
    // late.
    template <typename Done>
    std::string WaitUntil(Done done, const std::vector<uint32_t>& peers, int64_t timeout_s);
    // Whether the process of that rank lives.
    bool Alive(uint32_t rank) const;
    // Tells all waiting ranks that something changed.
    void Notify();

 private:
    std::string Open(const std::string& token);
    std::string MapWindows(uint32_t buffer_mb);
    size_t WindowOffset(uint32_t rank) const { return control_bytes_ + mapped_bytes() * rank; }
    char* MapWindow(uint32_t rank);
    std::string Missing(const std::vector<uint32_t>& peers) const;
    void Sleep(uint32_t tick) const;

    const uint32_t rank_;
    const uint32_t size_;
    int file_ = -1;
    int published_file_ =
        -1;  // in the process that made the segment: the descriptor that the token names
    Header* header_ = nullptr;
    Channel* channels_ = nullptr;
    size_t control_bytes_ = 0;
    size_t window_bytes_ = 0;
    std::vector<char*> windows_;
    std::vector<char*> card_windows_;  // of ranks out of a core's reach
    std::mutex card_mutex_;
    std::string error_;
};

int64_t NowSeconds();

template <typename Done>
std::string Segment::WaitUntil(Done done, const std::vector<uint32_t>& peers, int64_t timeout_s) {
    const int64_t deadline = NowSeconds() + timeout_s;
    while (true) {
        const uint32_t tick = header_->tick.load(std::memory_order_acquire);
        if (done()) return "";
        const std::string missing = Missing(peers);
        // A peer may have made its last step and left between the two checks.
        if (!missing.empty()) return done() ? "" : missing;
        if (NowSeconds() > deadline) return "no progress in " + std::to_string(timeout_s) + " s";
        Sleep(tick);
    }
}

}  // namespace standin
