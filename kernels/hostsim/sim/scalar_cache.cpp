// Scalar access to GM: a cache of 64-byte lines per core that nothing keeps coherent
// (docs/hostsim.md, memory model 4).
#include <algorithm>
#include <cstring>

#include "core.h"
#include "world.h"

namespace hostsim {

void Core::ScalarRead(uint64_t address, void* to, uint32_t bytes, Loc loc) {
    Begin(PIPE_S, loc);
    Align(address % bytes == 0, "scalar GM access is not naturally aligned");
    bool poll = poll_depth > 0;
    CheckGm(address, bytes, false, poll);
    Allocation* a = world->memory.Find(address, bytes);
    if (a == nullptr) return std::memset(to, 0, bytes), void();
    launch->counters.scalar_read += bytes;
    uint64_t base = address / kCacheLine * kCacheLine;
    auto at = cache_.find(base);
    if (at == cache_.end()) {
        Line line{};
        uint64_t first = std::max(base, a->base),
                 last = std::min(base + kCacheLine, a->base + a->size);
        std::memcpy(line.bytes.data() + (first - base), a->host + (first - a->base), last - first);
        line.original = line.bytes;
        line.loc = loc;
        at = cache_.emplace(base, line).first;
    } else if (!poll && std::memcmp(at->second.original.data() + (address - base),
                                    a->host + (address - a->base), bytes) != 0) {
        Report("scalar-cache", "reads a cached line of '" + a->name +
                                   "' whose memory has changed; cached at " +
                                   at->second.loc.Text());
    }
    if (a->Tracked() && !poll && !at->second.dirty &&
        std::memchr(a->written.get() + (address - a->base), 0, bytes) != nullptr) {
        Report("uninit", "scalar read of '" + a->name + "', which nobody wrote");
    }
    if (poll) {
        poll_ranges.push_back({base, base + kCacheLine});
        ++launch->counters.polls;
    }
    std::memcpy(to, at->second.bytes.data() + (address - base), bytes);
}

void Core::ScalarWrite(uint64_t address, const void* from, uint32_t bytes, Loc loc) {
    uint8_t ignored[8];
    bool polling = poll_depth++ > 0;  // fetching the line is not a read of the program
    ScalarRead(address, ignored, bytes, loc);
    --poll_depth;
    if (!polling) poll_ranges.clear();
    launch->counters.scalar_read -= bytes;
    launch->counters.scalar_write += bytes;
    CheckGm(address, bytes, true, false);
    auto at = cache_.find(address / kCacheLine * kCacheLine);
    if (at == cache_.end()) return;
    std::memcpy(at->second.bytes.data() + address % kCacheLine, from, bytes);
    at->second.dirty = true;
    at->second.loc = loc;
}

void Core::CleanCache(uint64_t address, bool all) {
    uint64_t base = address / kCacheLine * kCacheLine;
    for (auto at = cache_.begin(); at != cache_.end();) {
        if (!all && at->first != base) {
            ++at;
            continue;
        }
        if (at->second.dirty) {
            for (uint64_t byte = 0; byte < kCacheLine; ++byte) {
                Allocation* a = world->memory.Find(at->first + byte, 1);
                if (a == nullptr) continue;
                uint64_t to = at->first + byte - a->base;
                bool changed = at->second.bytes[byte] != at->second.original[byte];
                a->host[to] = at->second.bytes[byte];
                if (a->Tracked() && changed) a->written[to] = 1;
            }
            world->Landed(at->first, at->first + kCacheLine);
        }
        at = cache_.erase(at);
    }
}

}  // namespace hostsim
