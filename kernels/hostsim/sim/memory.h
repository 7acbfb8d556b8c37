// Global memory of all ranks: allocations, translation, who wrote what. Addresses seen by kernels
// are not host addresses.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "findings.h"

namespace hostsim {

constexpr uint64_t kBlock = 32;  // the unit of DMA and of everything the checker tracks
constexpr uint64_t kCacheLine = 64;

// What copies to GM do there instead of overwriting; int32_t, word by word.
enum class Atomic : uint8_t { kNone = 0, kAdd, kMax };

// Who used a 32-byte block last. Launches count from 1.
struct BlockUse {
    uint32_t reader = 0;  // launch; polls are not counted
    uint32_t launch = 0;  // that wrote; 0: the host
    uint32_t phase = 0;   // SyncAlls the writing core had passed
    uint16_t core = 0;
    Atomic atomic = Atomic::kNone;  // how it was written
    Loc loc{"", 0};                 // of the write
};

struct Allocation {
    uint64_t base = 0, size = 0;
    int rank = 0;
    std::string name;
    uint8_t* host = nullptr;                                                   // the bytes
    std::unique_ptr<uint8_t, decltype(&std::free)> owned{nullptr, std::free};  // if it is ours
    std::unique_ptr<uint8_t[]> written;  // per byte: somebody wrote it; empty if nobody asks
    std::vector<BlockUse> uses;          // per 32-byte block
    bool Ours() const { return owned != nullptr; }  // no other process maps it
    bool Tracked() const { return written != nullptr; }
};

class GlobalMemory {
 public:
    explicit GlobalMemory(bool tracked) : tracked_(tracked) {}
    // A new allocation of `size` bytes, 512-byte aligned plus `offset` (a tensor that is a view).
    // Content is poison until written, zero if it is not tracked.
    uint64_t Alloc(int rank, uint64_t size, const std::string& name, uint64_t offset);
    // Memory that exists already; `base` is what kernels see.
    void AddForeign(uint64_t base, uint64_t size, int rank, const std::string& name, void* host);
    void Free(uint64_t base);
    // The allocation that holds all of [address, address + bytes), or nullptr.
    Allocation* Find(uint64_t address, uint64_t bytes);

    // Copies in and out of the bytes behind `address`. An aligned 32-byte block is seen whole by
    // other processes that map it: its first word is written last and read first.
    static void Land(uint64_t address, uint8_t* to, const uint8_t* from, uint64_t bytes);
    static void Fetch(uint64_t address, uint8_t* to, const uint8_t* from, uint64_t bytes);

    void HostWrite(uint64_t address, const void* from, uint64_t bytes, bool mark_written);
    bool HostRead(uint64_t address, void* to, uint64_t bytes, uint8_t* written);

 private:
    const bool tracked_;
    std::vector<std::unique_ptr<Allocation>> sorted_;  // by base
    std::vector<uint64_t> next_;                       // next free address per rank
    Allocation* last_ = nullptr;
    void Insert(std::unique_ptr<Allocation> allocation);
};

}  // namespace hostsim
