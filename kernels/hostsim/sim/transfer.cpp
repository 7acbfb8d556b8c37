// Copies between GM and UB, and when they take effect (docs/hostsim.md, memory model 2, 3 and 5).
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "core.h"
#include "world.h"

namespace hostsim {

namespace {

std::string Hex(uint64_t value) {
    char text[24];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

}  // namespace

// Bounds, block sharing and overlapping launches for one contiguous GM range, judged when the
// instruction is issued.
void Core::CheckGm(uint64_t address, uint64_t bytes, bool write, bool poll) {
    Allocation* a = world->memory.Find(address, bytes);
    if (a == nullptr) {
        Allocation* near = world->memory.Find(address, 1);
        Report("gm-bounds",
               std::string(write ? "writes " : "reads ") + std::to_string(bytes) + " bytes at " +
                   Hex(address) +
                   (near == nullptr
                        ? ", outside every allocation"
                        : ", byte " + std::to_string(address - near->base) + " of '" + near->name +
                              "' (" + std::to_string(near->size) + " bytes)"));
        return;
    }
    if (world->cards) {
        if (!world->cards->SameServer(rank, a->rank)) {
            Report("server", std::string(write ? "writes '" : "reads '") + a->name + "' of rank " +
                                 std::to_string(a->rank) +
                                 ", which is in another server: only a card gets there");
        }
        if (world->cards->IsDoorbell(address, bytes)) return;
        if (write) world->cards->Judge(this, where, address, bytes);
    }
    if (!a->Tracked() || !checks_) return;
    for (uint64_t b = address / kBlock; b <= (address + bytes - 1) / kBlock; ++b) {
        BlockUse& last = a->uses[b - a->base / kBlock];
        if (!poll) CheckOverlap(*a, last, write);
        if (!write) {
            if (!poll) last.reader = launch->id;
            continue;
        }
        if (last.launch == launch->id && last.core != index && last.phase == phase &&
            !(atomic != Atomic::kNone && last.atomic == atomic)) {
            Report("block-sharing", "writes byte " + std::to_string(b * kBlock - a->base) +
                                        " of '" + a->name + "' in a 32-byte block core " +
                                        std::to_string(last.core) + " writes at " +
                                        last.loc.Text() + " with no SyncAll between");
        }
        last = {last.reader, launch->id, phase, static_cast<uint16_t>(index), atomic, where};
    }
}

// Another launch in flight on this rank uses the block, and one of the two writes it.
void Core::CheckOverlap(const Allocation& a, const BlockUse& last, bool write) {
    auto other = [&](uint32_t id) { return id != launch->id && world->Active(id, rank); };
    if (other(last.launch)) {
        Report("overlap", std::string(write ? "writes '" : "reads '") + a.name +
                              "' written by core " + std::to_string(last.core) + " of " +
                              world->Find(last.launch)->name + " at " + last.loc.Text() +
                              ", a launch still in flight on this rank");
    } else if (write && other(last.reader)) {
        Report("overlap", "writes '" + a.name + "' read by " + world->Find(last.reader)->name +
                              ", a launch still in flight on this rank");
    }
}

void Core::Load(const CopyShape& shape) {
    bool poll = poll_depth > 0;
    Counters& counters = launch->counters;
    for (uint32_t i = 0; i < shape.count; ++i) {
        uint64_t gm = shape.gm + i * shape.gm_pitch;
        CheckGm(gm, shape.bytes, false, poll);
        if (poll) poll_ranges.push_back({gm, gm + shape.bytes});
        Write(shape.ub + i * shape.ub_pitch, shape.bytes + shape.pad_bytes);
    }
    uint64_t total = static_cast<uint64_t>(shape.count) * shape.bytes;
    if (poll) {
        counters.poll_bytes += total;
        ++counters.polls;
    } else {
        (world->RankOf(shape.gm) == rank ? counters.read_own : counters.read_remote) += total;
        counters.CountCopy(total);
    }
    if (timed) {
        const int of = world->RankOf(shape.gm);
        loads_.push_back({seq_, shape, poll, where, false});
        if (poll) world->timeline->Watch(this, of);
        return world->timeline->Copy(this, true, of < 0 ? rank : of, total, seq_, where);
    }
    PendingLoad load{seq_, shape, poll, where, world->cards && world->Chance(2)};
    if (!checks_ || world->Chance(2)) {
        RunLoad(load);
    } else {
        loads_.push_back(load);
        world->NoteInFlight(this);
    }
    world->MaybeYield(4);
}

void Core::RunLoad(const PendingLoad& load) {
    const CopyShape& s = load.shape;
    for (uint32_t i = 0; i < s.count; ++i) {
        uint64_t gm = s.gm + i * s.gm_pitch;
        uint32_t at = s.ub + i * s.ub_pitch;
        Allocation* a = world->memory.Find(gm, s.bytes);
        if (a == nullptr || at + s.bytes + s.pad_bytes > kUbBytes) continue;
        uint64_t from = gm - a->base;
        if (a->Ours()) {
            std::memcpy(ub + at, a->host + from, s.bytes);
        } else {
            GlobalMemory::Fetch(gm, ub + at, a->host + from, s.bytes);
        }
        if (a->Tracked() && checks_ && !load.poll) {
            const uint8_t* written = a->written.get() + from;
            if (std::memchr(written, 0, s.bytes) != nullptr) {
                Loc saved = where;
                where = load.loc;
                uint64_t hole = static_cast<const uint8_t*>(std::memchr(written, 0, s.bytes)) -
                                a->written.get();
                Report("uninit", "reads byte " + std::to_string(hole) + " of '" + a->name +
                                     "' (rank " + std::to_string(a->rank) +
                                     "), which nobody wrote");
                where = saved;
            }
        }
        MarkWritten(at, s.bytes, true);
        if (s.pad_bytes != 0) {
            std::memset(ub + at + s.bytes, 0xEE, s.pad_bytes);
            MarkWritten(at + s.bytes, s.pad_bytes, false);
        }
    }
}

void Core::Store(const CopyShape& shape) {
    Counters& counters = launch->counters;
    for (uint32_t i = 0; i < shape.count; ++i) {
        uint64_t gm = shape.gm + i * shape.gm_pitch;
        uint32_t at = shape.ub + i * shape.ub_pitch;
        CheckGm(gm, shape.bytes, true, false);
        Read(at, shape.bytes);
        if (at + shape.bytes > kUbBytes) continue;
        // Cut into at most four pieces at 32-byte boundaries: each lands by itself.
        uint64_t from = gm, end = gm + shape.bytes;
        for (int cuts = !checks_ || timed || world->Chance(2) ? 0 : 3; from < end; --cuts) {
            uint64_t blocks = (end - 1) / kBlock - from / kBlock;
            uint64_t to = end;
            if (cuts > 0 && blocks > 0) to = (from / kBlock + 1 + world->Random(blocks)) * kBlock;
            const uint8_t* bytes = ub + at + (from - gm);
            stores_.push_back({seq_, generation_, atomic, from, where,
                               std::vector<uint8_t>(bytes, bytes + (to - from))});
            from = to;
        }
    }
    uint64_t total = static_cast<uint64_t>(shape.count) * shape.bytes;
    (world->RankOf(shape.gm) == rank ? counters.write_own : counters.write_remote) += total;
    counters.CountCopy(total);
    if (timed) {
        const int of = world->RankOf(shape.gm);
        return world->timeline->Copy(this, false, of < 0 ? rank : of, total, seq_, where);
    }
    if (!checks_) ForceStores(seq_);
    world->NoteInFlight(this);
    world->MaybeYield(4);
}

void Core::LandPiece(size_t at) {
    const Piece& piece = stores_[at];
    Allocation* a = world->memory.Find(piece.gm, piece.bytes.size());
    if (a != nullptr) {
        uint8_t* to = a->host + (piece.gm - a->base);
        const bool rings = world->cards && world->cards->IsDoorbell(piece.gm, piece.bytes.size());
        if (world->cards && !rings)
            world->cards->Judge(this, piece.loc, piece.gm, piece.bytes.size());
        if (piece.atomic != Atomic::kNone) {
            MergePiece(*a, piece);
        } else if (a->Ours()) {
            std::memcpy(to, piece.bytes.data(), piece.bytes.size());
            if (a->Tracked())
                std::memset(a->written.get() + (piece.gm - a->base), 1, piece.bytes.size());
        } else {
            GlobalMemory::Land(piece.gm, to, piece.bytes.data(), piece.bytes.size());
        }
        world->Landed(piece.gm, piece.gm + piece.bytes.size());
        if (rings)
            world->cards->Ring(this, piece.loc, piece.gm, piece.bytes.data(), piece.bytes.size());
    }
    stores_.erase(stores_.begin() + at);
}

// Words are merged one by one, each as a whole: other processes may map the memory, but only one
// rank merges.
void Core::MergePiece(Allocation& a, const Piece& piece) {
    uint64_t at = piece.gm - a.base;
    if (a.Tracked() && checks_ &&
        std::memchr(a.written.get() + at, 0, piece.bytes.size()) != nullptr) {
        where = piece.loc;
        Report("uninit", std::string(piece.atomic == Atomic::kAdd ? "adds to" : "compares with") +
                             " byte " + std::to_string(at) + " of '" + a.name +
                             "', which nobody wrote");
    }
    for (uint64_t byte = 0; byte + 4 <= piece.bytes.size(); byte += 4) {
        int32_t word;
        std::memcpy(&word, piece.bytes.data() + byte, 4);
        int32_t* to = reinterpret_cast<int32_t*>(a.host + at + byte);
        if (piece.atomic == Atomic::kAdd) {
            __atomic_fetch_add(to, word, __ATOMIC_RELEASE);
            continue;
        }
        int32_t there = __atomic_load_n(to, __ATOMIC_RELAXED);
        while (there < word && !__atomic_compare_exchange_n(to, &there, word, false,
                                                            __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
        }
    }
}

// A piece may land when no store of an earlier barrier generation is left; stores_ is ordered by
// generation.
bool Core::LandStore() {
    if (stores_.empty()) return false;
    size_t candidates = 1;
    while (candidates < stores_.size() && stores_[candidates].generation == stores_[0].generation)
        ++candidates;
    LandPiece(world->Random(candidates));
    return true;
}

bool Core::LandOne() {
    if (!cleaned_.empty() && (world->Chance(2) || (stores_.empty() && loads_.empty()))) {
        WriteBack(world->Random(cleaned_.size()));
        return true;
    }
    if (!loads_.empty() && (stores_.empty() || world->Chance(2))) {
        size_t at = world->Random(loads_.size());
        if (!loads_[at].lazy) {
            PendingLoad load = loads_[at];
            loads_.erase(loads_.begin() + at);
            RunLoad(load);
            return true;
        }
    }
    return LandStore();
}

void Core::ForceStores(uint32_t up_to) {
    // Earlier generations always land first, so landing until no covered piece is left terminates.
    while (std::any_of(stores_.begin(), stores_.end(),
                       [&](const Piece& p) { return p.seq <= up_to; })) {
        LandStore();
        world->MaybeYield(world->drain_yield);
    }
}

void Core::ForceLoads(uint32_t up_to) {
    for (size_t at = 0; at < loads_.size();) {
        if (loads_[at].seq > up_to) {
            ++at;
            continue;
        }
        PendingLoad load = loads_[at];
        loads_.erase(loads_.begin() + at);
        if (timed) LandUnder(load);
        RunLoad(load);
    }
}

// A load that is forced runs ahead of time: what this core itself has written there comes first.
void Core::LandUnder(const PendingLoad& load) {
    const CopyShape& s = load.shape;
    const uint64_t end = s.gm + (s.count - 1) * s.gm_pitch + s.bytes;
    for (size_t at = 0; at < stores_.size();) {
        if (stores_[at].gm < end && s.gm < stores_[at].gm + stores_[at].bytes.size()) {
            LandPiece(at);
        } else {
            ++at;
        }
    }
}

void Core::LoadNow(uint32_t number) {
    for (size_t at = 0; at < loads_.size() && loads_[at].seq <= number; ++at) {
        if (loads_[at].seq != number) continue;
        PendingLoad load = loads_[at];
        loads_.erase(loads_.begin() + at);
        return RunLoad(load);
    }
}

void Core::StoreNow(uint32_t number) {
    for (size_t at = 0; at < stores_.size() && stores_[at].seq <= number;) {
        if (stores_[at].seq == number) {
            LandPiece(at);
        } else {
            ++at;
        }
    }
}

}  // namespace hostsim
