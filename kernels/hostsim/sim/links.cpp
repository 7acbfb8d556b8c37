#include "links.h"

#include <algorithm>

namespace hostsim {

namespace {

Picoseconds Busy(uint64_t bytes, double rate) {
    return static_cast<Picoseconds>(1000.0 * static_cast<double>(bytes) / rate);
}

}  // namespace

Path Links::Between(int core_rank, int memory_rank, bool load) const {
    const auto& m = machine_;
    if (core_rank == memory_rank)
        return {-1, static_cast<Picoseconds>(1000 * m.memory_latency_ns),
                load ? m.core_read : m.core_write};
    const auto together = [&](uint32_t dies) {
        return static_cast<uint32_t>(core_rank) / dies == static_cast<uint32_t>(memory_rank) / dies;
    };
    const int distance = together(m.package_dies) ? 0 : together(m.server_dies) ? 1 : 2;
    return {distance, static_cast<Picoseconds>(1000 * m.link[distance].latency_ns),
            load ? m.core_remote_read : m.core_remote_write};
}

// A package's two dies, and with `pairwise` all pairs, have a link of their own; all else leaves
// and reaches a die through one port.
Links::Step Links::Leave(const Path& path, int core_rank, int memory_rank, bool load,
                         uint64_t bytes, Picoseconds now) {
    const bool port = path.distance > 0 && machine_.pairwise == 0;
    Picoseconds ready = now;
    if (load || !port) ready = Of(memory_rank).memory.Take(now, Busy(bytes, machine_.memory));
    if (path.distance < 0) return {ready, false};
    const int from = load ? memory_rank : core_rank, to = load ? core_rank : memory_rank;
    const Picoseconds busy = Busy(bytes, machine_.link[path.distance].rate);
    Server& way =
        port ? Of(from).out : pairs_[static_cast<uint64_t>(from) << 32 | static_cast<uint32_t>(to)];
    const Picoseconds left = way.Take(now, busy);
    if (counts) Count(sent_[from].out, left - busy, bytes);
    if (counts && !port) Count(sent_[to].in, left - busy, bytes);
    return {std::max(left, ready) - (port ? busy : 0), port};
}

Picoseconds Links::Reach(const Path& path, int core_rank, int memory_rank, bool load,
                         uint64_t bytes, Picoseconds now) {
    const int to = load ? core_rank : memory_rank;
    const Picoseconds busy = Busy(bytes, machine_.link[path.distance].rate);
    const Picoseconds across = Of(to).in.Take(now, busy);
    if (counts) Count(sent_[to].in, across - busy, bytes);
    if (load) return across;
    return std::max(across, Of(to).memory.Take(now, Busy(bytes, machine_.memory)));
}

Links::Part Links::Send(int from, int to, uint64_t bytes, Picoseconds now) {
    const Picoseconds busy = Busy(bytes, machine_.card_rate);
    const Picoseconds left = Of(from).card_out.Take(now, busy);
    if (counts) {
        Count(sent_[from].out, left - busy, bytes);
        Count(sent_[to].in, left - busy, bytes);
    }
    return {left, Of(to).card_in.Take(left - busy, busy)};
}

void Links::Count(std::vector<uint64_t>& slices, Picoseconds at, uint64_t bytes) {
    const size_t slice = static_cast<size_t>(at / kSlice);
    if (slices.size() <= slice) slices.resize(slice + 1, 0);
    slices[slice] += bytes;
}

}  // namespace hostsim
