// What the checker found, and what a launch cost.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace hostsim {

// Where in the kernel source a call stands; made by a default argument at the call site.
struct Loc {
    const char* file;
    int line;
    static constexpr Loc Here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
        return Loc{file, line};
    }
    std::string Text() const;
};

struct Finding {
    std::string kind, kernel, where, text;
    int rank, core;
    uint64_t times;
};

class Findings {
 public:
    // Findings of one kind at one line are one finding, counted.
    void Add(const std::string& kind, const std::string& kernel, Loc loc, int rank, int core,
             const std::string& text);
    const std::vector<Finding>& All() const { return all_; }
    std::string Json() const;

 private:
    std::vector<Finding> all_;
    std::map<std::string, size_t> index_;
};

struct Counters {
    uint64_t read_own = 0, read_remote = 0, write_own = 0,
             write_remote = 0;                   // bytes by copies, polling excluded
    uint64_t scalar_read = 0, scalar_write = 0;  // bytes through the data cache
    uint64_t poll_bytes = 0, polls = 0;
    uint64_t vector_instructions = 0, vector_elements = 0;
    uint64_t messages = 0, message_bytes = 0;  // that cards took
    uint64_t sync_alls = 0, peak_ub = 0;
    uint64_t clock_reads = 0;             // GetSystemCycle
    std::map<uint64_t, uint64_t> copies;  // by size class: bytes rounded up to a power of two

    void Merge(const Counters& other);
    void CountCopy(uint64_t bytes);
    std::string Json() const;
};

std::string JsonString(const std::string& text);

}  // namespace hostsim
