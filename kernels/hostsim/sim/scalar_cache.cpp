// Scalar access to GM: a cache of 64-byte lines per core that nothing keeps coherent
// (docs/hostsim.md, memory model 4).
#include <algorithm>
#include <cstring>

#include "core.h"
#include "world.h"

namespace hostsim {

// The cached line, fetched if it is not there.
Core::Line& Core::Cached(uint64_t address, const Allocation& a, Loc loc) {
    uint64_t base = address / kCacheLine * kCacheLine;
    for (size_t at = 0; at < cleaned_.size();) {  // fetched behind what the core itself wrote
        if (cleaned_[at].base == base) {
            WriteBack(at);
        } else {
            ++at;
        }
    }
    auto [at, missing] = cache_.try_emplace(base);
    Line& line = at->second;
    if (missing) {
        if (timed) world->timeline->ScalarMiss(this);
        uint64_t first = std::max(base, a.base),
                 last = std::min(base + kCacheLine, a.base + a.size);
        std::memcpy(line.bytes.data() + (first - base), a.host + (first - a.base), last - first);
        line.original = line.bytes;
        line.dirty = false;
        line.loc = loc;
    }
    return line;
}

void Core::ScalarRead(uint64_t address, void* to, uint32_t bytes, Loc loc) {
    Begin(PIPE_S, loc);
    Align(address % bytes == 0, "scalar GM access is not naturally aligned");
    bool poll = poll_depth > 0;
    CheckGm(address, bytes, false, poll);
    Allocation* a = world->memory.Find(address, bytes);
    if (a == nullptr) return std::memset(to, 0, bytes), void();
    const Line& line = Cached(address, *a, loc);
    const uint8_t* cached = line.bytes.data() + address % kCacheLine;
    if (poll) {
        uint64_t base = address / kCacheLine * kCacheLine;
        poll_ranges.push_back({base, base + kCacheLine});
        ++launch->counters.polls;
    } else {
        launch->counters.scalar_read += bytes;
        if (std::memcmp(line.original.data() + address % kCacheLine, a->host + (address - a->base),
                        bytes) != 0) {
            Report("scalar-cache", "reads a cached line of '" + a->name +
                                       "' whose memory has changed; cached at " + line.loc.Text());
        }
        if (a->Tracked() && !line.dirty &&
            std::memchr(a->written.get() + (address - a->base), 0, bytes) != nullptr) {
            Report("uninit", "scalar read of '" + a->name + "', which nobody wrote");
        }
    }
    std::memcpy(to, cached, bytes);
}

void Core::ScalarWrite(uint64_t address, const void* from, uint32_t bytes, Loc loc) {
    Begin(PIPE_S, loc);
    Align(address % bytes == 0, "scalar GM access is not naturally aligned");
    CheckGm(address, bytes, true, false);
    Allocation* a = world->memory.Find(address, bytes);
    if (a == nullptr) return;
    launch->counters.scalar_write += bytes;
    Line& line = Cached(address, *a, loc);
    std::memcpy(line.bytes.data() + address % kCacheLine, from, bytes);
    line.dirty = true;
    line.loc = loc;
}

// Dropped at once, written back some time before the next barrier on all pipes.
void Core::CleanCache(uint64_t address, bool all, Loc loc) {
    if (world->Mutated(loc, "clean")) return;
    uint64_t base = address / kCacheLine * kCacheLine;
    for (auto at = cache_.begin(); at != cache_.end();) {
        if (!all && at->first != base) {
            ++at;
            continue;
        }
        if (at->second.dirty) cleaned_.push_back({at->first, at->second, loc});
        at = cache_.erase(at);
    }
    if (timed) world->timeline->ScalarMiss(this);
    if (!checks_ || timed) ForceCleans();
    world->NoteInFlight(this);
}

void Core::ForceCleans() {
    while (!cleaned_.empty()) WriteBack(world->Random(cleaned_.size()));
}

// The whole line: also the bytes that this core has not changed, which others may have meanwhile.
void Core::WriteBack(size_t which) {
    const auto [base, line, loc] = cleaned_[which];
    cleaned_.erase(cleaned_.begin() + static_cast<std::ptrdiff_t>(which));
    if (world->cards) {
        world->cards->Judge(this, loc, base, kCacheLine);
        if (world->cards->IsDoorbell(base, kCacheLine))
            ReportAt(loc, "card", "rings through the data cache, which writes a whole line");
    }
    bool loses = false;
    for (uint64_t byte = 0; byte < kCacheLine; ++byte) {
        Allocation* a = world->memory.Find(base + byte, 1);
        if (a == nullptr) continue;
        uint64_t to = base + byte - a->base;
        bool changed = line.bytes[byte] != line.original[byte];
        loses = loses || (!changed && a->host[to] != line.original[byte]);
        a->host[to] = line.bytes[byte];
        if (a->Tracked() && changed) a->written[to] = 1;
    }
    if (loses) {
        ReportAt(loc, "scalar-cache",
                 "writes back a line that others have changed; written at " + line.loc.Text());
    }
    world->Landed(base, base + kCacheLine);
}

}  // namespace hostsim
