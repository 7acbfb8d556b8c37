#include "core.h"

#include <algorithm>
#include <cstring>

#include "world.h"

namespace hostsim {

__thread Core* g_core = nullptr;

namespace {

const char* const kPipeNames[] = {"S", "V", "MTE2", "MTE3", "ALL"};

constexpr pipe_t kEventFrom[] = {PIPE_S,    PIPE_S,    PIPE_S,    PIPE_V,    PIPE_V,    PIPE_V,
                                 PIPE_MTE2, PIPE_MTE2, PIPE_MTE2, PIPE_MTE3, PIPE_MTE3, PIPE_MTE3};
constexpr pipe_t kEventTo[] = {PIPE_V, PIPE_MTE2, PIPE_MTE3, PIPE_S, PIPE_MTE2, PIPE_MTE3,
                               PIPE_S, PIPE_V,    PIPE_MTE3, PIPE_S, PIPE_V,    PIPE_MTE2};

}  // namespace

Core::Core(World* world, Launch* launch, int index)
    : world(world),
      launch(launch),
      rank(launch->rank),
      index(index),
      checks_(world->checks),
      memory_(CoreMemory::Take(world->checks)) {
    ub = memory_->ub;
}

Core::~Core() { CoreMemory::Give(std::move(memory_)); }

int Core::EventTo(int event) { return kEventTo[event]; }

uint8_t* Core::Stack() { return memory_->stack; }

std::string Wait::Text() const {
    if (!why.empty()) return why;
    if (peer < 0) return std::string(what) + " at " + at.Text();
    return std::string(what) + " of rank " + std::to_string(peer) + ", epoch " +
           std::to_string(epoch);
}

void Core::Report(const char* kind, const std::string& text) {
    world->findings.Add(kind, launch->name, where, rank, index, text);
}

// While the core may be in the middle of something else.
void Core::ReportAt(Loc loc, const char* kind, const std::string& text) {
    const Loc saved = where;
    where = loc;
    Report(kind, text);
    where = saved;
}

void Core::Align(bool ok, const char* what) {
    if (!ok) Report("align", what);
}

void Core::Begin(pipe_t pipe, Loc loc) {
    where = loc;
    pipe_ = pipe;
    seq_ = ++issued_[pipe];
    if (checks_) issued_at_[pipe].push_back(loc);
    if (timed && pipe == PIPE_S) world->timeline->Scalar(this);
    if (timed && pipe != PIPE_S) world->timeline->Issue(this);
    if (pipe != PIPE_S) {
        // The scalar unit issued this instruction after everything it waited for; its own UB
        // accesses need an event.
        for (int q = 0; q < kPipes; ++q) {
            if (q != PIPE_S) known_[pipe][q] = std::max(known_[pipe][q], known_[PIPE_S][q]);
        }
        if (pipe == PIPE_V) ++launch->counters.vector_instructions;
    } else {
        known_[PIPE_S][PIPE_S] = seq_;
    }
}

std::string Core::IssuedAt(int pipe, uint32_t seq) const {
    return issued_at_[pipe][seq - 1].Text();
}

void Core::Read(uint32_t at, uint32_t bytes) {
    if (bytes == 0) return;
    if (at + bytes > kUbBytes) return Report("ub-bounds", "read behind the unified buffer");
    if (!checks_) return;
    memory_->Touch(at + bytes);
    for (uint32_t b = at / kBlock; b <= (at + bytes - 1) / kBlock; ++b) {
        UbBlock& block = memory_->blocks[b];
        if (known_[pipe_][block.write_pipe] < block.write_seq &&
            !(block.write_pipe == PIPE_S && pipe_ == PIPE_S)) {
            Report("hazard",
                   std::string(kPipeNames[pipe_]) + " reads UB byte " + std::to_string(b * kBlock) +
                       " written by " + kPipeNames[block.write_pipe] + " at " +
                       IssuedAt(block.write_pipe, block.write_seq) + " without synchronisation");
        }
        block.read_seq[pipe_] = seq_;
    }
    if (std::memchr(memory_->written + at, 0, bytes) != nullptr) {
        Report("uninit", "reads UB bytes nobody wrote, operand at byte " + std::to_string(at));
    }
}

// What a write of `pipe`, which knows what is complete, collides with.
void Core::CheckWrite(pipe_t pipe, const Clock& known, uint32_t at, uint32_t bytes) {
    for (uint32_t b = at / kBlock; b <= (at + bytes - 1) / kBlock; ++b) {
        const UbBlock& block = memory_->blocks[b];
        const bool same_instruction = block.write_pipe == pipe && block.write_seq == seq_;
        if (known[block.write_pipe] < block.write_seq && !same_instruction &&
            !(block.write_pipe == PIPE_S && pipe == PIPE_S)) {
            Report("hazard",
                   std::string(kPipeNames[pipe]) + " writes UB byte " + std::to_string(b * kBlock) +
                       " written by " + kPipeNames[block.write_pipe] + " at " +
                       IssuedAt(block.write_pipe, block.write_seq) + " without synchronisation");
        }
        for (int q = 0; q < kPipes; ++q) {
            // A pipe works in order, so it cannot overwrite what its own earlier instruction still
            // reads.
            if (q != pipe && block.read_seq[q] > known[q]) {
                Report("hazard", std::string(kPipeNames[pipe]) + " overwrites UB byte " +
                                     std::to_string(b * kBlock) + " read by " + kPipeNames[q] +
                                     " at " + IssuedAt(q, block.read_seq[q]) +
                                     " without synchronisation");
            }
        }
    }
}

void Core::Write(uint32_t at, uint32_t bytes) {
    if (bytes == 0) return;
    if (at + bytes > kUbBytes) return Report("ub-bounds", "write behind the unified buffer");
    if (!checks_) return;
    CheckWrite(pipe_, known_[pipe_], at, bytes);
    memory_->Touch(at + bytes);
    for (uint32_t b = at / kBlock; b <= (at + bytes - 1) / kBlock; ++b) {
        UbBlock& block = memory_->blocks[b];
        block.write_pipe = pipe_;
        block.write_seq = seq_;
    }
}

void Core::AlsoWrites(pipe_t pipe, uint32_t at, uint32_t bytes, bool after_vector) {
    if (!checks_) return;
    Clock known = known_[pipe];
    if (after_vector) known[PIPE_V] = issued_[PIPE_V];
    CheckWrite(pipe, known, at, bytes);
}

void Core::MarkWritten(uint32_t at, uint32_t bytes, bool written) {
    if (!checks_ || at + bytes > kUbBytes) return;
    memory_->Touch(at + bytes);
    std::memset(memory_->written + at, written, bytes);
}

Clock Core::Snapshot(pipe_t pipe) const {
    Clock clock = known_[pipe];
    if (pipe != PIPE_S) {
        for (int q = 0; q < kPipes; ++q) {
            if (q != PIPE_S) clock[q] = std::max(clock[q], known_[PIPE_S][q]);
        }
    }
    clock[pipe] = issued_[pipe];
    return clock;
}

void Core::Learn(pipe_t pipe, const Clock& clock) {
    ForceLoads(clock[PIPE_MTE2]);
    if (!timed) ForceStores(clock[PIPE_MTE3]);
    for (int q = 0; q < kPipes; ++q) known_[pipe][q] = std::max(known_[pipe][q], clock[q]);
}

void Core::Barrier(pipe_t pipe, Loc loc) {
    where = loc;
    if (world->Mutated(loc, "barrier")) return;
    if (timed) world->timeline->Drain(this, pipe);
    if (pipe == PIPE_ALL) {
        Clock all;
        for (int q = 0; q < kPipes; ++q) all[q] = issued_[q];
        for (int p = 0; p < kPipes; ++p) Learn(static_cast<pipe_t>(p), all);
        ForceCleans();
        ++generation_;
        return;
    }
    if (pipe == PIPE_S) return Report("align", "PipeBarrier<PIPE_S> does not exist");
    if (pipe == PIPE_MTE2 && !timed) ForceLoads(issued_[PIPE_MTE2]);
    if (pipe == PIPE_MTE3) ++generation_;
    known_[pipe][pipe] = issued_[pipe];
}

void Core::SetFlag(int event, int id, Loc loc) {
    where = loc;
    if (!world->Mutated(loc, "event")) Raise(event, id, loc);
}

void Core::WaitFlag(int event, int id, Loc loc) {
    where = loc;
    if (world->Mutated(loc, "event")) return;
    Lower(event, id, loc, true);
    world->MaybeYield(8);
}

void Core::Raise(int event, int id, Loc loc) {
    where = loc;
    if (id < 0 || id >= kEventIds) return Report("event", "event id out of range");
    if (id >= kFreeEventIds) Report("event", "event id 6 or 7, which are not the kernel's");
    Event& e = events_[event][id];
    if (e.set) Report("event", "set twice without a wait; first at " + e.loc.Text());
    e = {true, Snapshot(kEventFrom[event]), loc};
    if (timed) world->timeline->Set(this, kEventFrom[event], event * kEventIds + id, loc);
}

void Core::Lower(int event, int id, Loc loc, bool learn) {
    where = loc;
    if (id < 0 || id >= kEventIds) return Report("event", "event id out of range");
    Event& e = events_[event][id];
    if (!e.set) return Report("event", "waits for an event that nobody set");
    e.set = false;
    if (timed) world->timeline->Wait(this, kEventTo[event], event * kEventIds + id, loc);
    if (learn) Learn(kEventTo[event], e.clock);
}

void Core::SpinForever(const std::string& why) {
    waiting_for.why = why;
    state = State::kSpinning;
    while (true) world->Yield();
}

void Core::Finish() {
    where = launch->entry;
    Barrier(PIPE_ALL, where);
    for (auto& ids : events_) {
        for (Event& e : ids) {
            if (e.set) {
                where = e.loc;
                Report("event", "left set at the end of the kernel");
            }
        }
    }
    for (auto& [address, line] : cache_) {
        if (line.dirty) {
            where = line.loc;
            Report("scalar-cache",
                   "a scalar write is still in the data cache at the end of the kernel");
        }
    }
    if (atomic != Atomic::kNone) {
        where = atomic_since;
        Report("event", std::string(atomic == Atomic::kAdd ? "SetAtomicAdd" : "SetAtomicMax") +
                            " is still on at the end of the kernel");
    }
    if (queues_open != 0) {
        where = queue_where;
        Report("queue", "a queue buffer was not returned; this was the last one taken");
    }
    launch->counters.peak_ub = std::max<uint64_t>(launch->counters.peak_ub, ub_top);
}

}  // namespace hostsim
