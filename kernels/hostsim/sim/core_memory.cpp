#include "core_memory.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace hostsim {

namespace {

constexpr size_t kKeptAtMost = 2048;  // more cores than any proof runs at a time

// Kept for the thread's next launch, whichever world that belongs to.
thread_local std::vector<std::unique_ptr<CoreMemory>> kept;

}  // namespace

std::unique_ptr<CoreMemory> CoreMemory::Take(bool clean) {
    std::unique_ptr<CoreMemory> memory;
    if (kept.empty()) {
        memory.reset(new CoreMemory);
    } else {
        memory = std::move(kept.back());
        kept.pop_back();
    }
    if (!clean) return memory;
    std::memset(memory->ub, 0xCD, memory->touched);
    std::memset(memory->written, 0, memory->touched);
    std::fill_n(memory->blocks.begin(), (memory->touched + kBlock - 1) / kBlock, UbBlock{});
    memory->touched = 0;
    return memory;
}

void CoreMemory::Give(std::unique_ptr<CoreMemory> memory) {
    if (kept.size() < kKeptAtMost) kept.push_back(std::move(memory));
}

}  // namespace hostsim
