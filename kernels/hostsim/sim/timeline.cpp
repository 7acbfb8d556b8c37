#include "timeline.h"

#include <algorithm>

#include "core.h"
#include "world.h"

namespace hostsim {

namespace {

constexpr uint64_t kChunk = 4096;                  // bytes that travel together
constexpr uint64_t kRepeat = 256;                  // bytes of a step of the vector unit
constexpr Picoseconds kPatience = 20'000'000'000;  // that passes when nothing else will
constexpr Picoseconds kTick = 20'000;              // of GetSystemCycle: 50 MHz

}  // namespace

Timeline::Timeline(World* world, const hostsim_machine& machine)
    : world_(world), machine_(machine), links_(machine) {}

TimedCore& Timeline::At(Core* core) { return *core->timed; }
const TimedCore& Timeline::At(const Core* core) { return *core->timed; }

void Timeline::StartTrace(int ranks) {
    trace_ = std::make_unique<Trace>(ranks);
    links_.counts = true;
}

void Timeline::WriteTrace(const std::string& path) const {
    if (trace_) trace_->Write(path, links_);
}

void Timeline::Plan(Picoseconds at, Kind kind, Core* core, int pipe, TimedCopy* copy,
                    uint32_t bytes) {
    events_.push({at, order_++, kind, static_cast<uint8_t>(pipe), bytes, core, copy});
}

void Timeline::PlanCard(CardStep step, uint32_t queue, Picoseconds at) {
    Plan(at, kCard, nullptr, static_cast<int>(step), nullptr, queue);
}

Links::Part Timeline::SendPart(int from, int to, uint64_t* left) {
    const uint64_t bytes = std::min(*left, kChunk);
    *left -= bytes;
    return links_.Send(from, to, bytes, clock_);
}
Picoseconds Timeline::NextMessage() const {
    return static_cast<Picoseconds>(1000 * machine_.card_post_ns);
}
Picoseconds Timeline::OneWay() const {
    return static_cast<Picoseconds>(1000 * machine_.card_latency_ns);
}

int64_t Timeline::Ticks(const Core* core) const { return At(core).now / kTick; }

// --- the scalar unit ---

void Timeline::Scalar(Core* core) { At(core).now += Cycles(machine_.scalar_cycles); }

void Timeline::ScalarMiss(Core* core) {
    At(core).now += static_cast<Picoseconds>(1000 * machine_.scalar_miss_ns);
}

// Gives the core back to the scheduler until the event it is held for.
void Timeline::Hold(Core* core, Held held, int what) {
    TimedCore& timed = At(core);
    const Picoseconds since = timed.now;
    timed.held = held;
    timed.held_for = what;
    core->state = Core::State::kHeld;
    world_->Yield();
    if (trace_) {
        const char* names[] = {"", "wait for a flag", "wait for all pipes", "queue is full"};
        trace_->Add(core->rank, core->index, PIPE_S, names[static_cast<int>(held)], core->where,
                    since, timed.now);
    }
}

void Timeline::Resume(Core* core, Picoseconds at) {
    TimedCore& timed = At(core);
    timed.held = Held::kNo;
    timed.now = std::max(timed.now, at);
    Plan(timed.now, kResume, core);
}

// The scalar unit hands an instruction to a pipe: takes time, and room in the pipe's queue.
void Timeline::Issue(Core* core) { At(core).now += Cycles(machine_.issue_cycles); }

void Timeline::Push(Core* core, int pipe, TimedInstruction instruction) {
    TimedCore& timed = At(core);
    if (timed.pipes[pipe].queue.size() >= machine_.queue_depth) Hold(core, Held::kFullQueue, pipe);
    instruction.issued = timed.now;
    timed.pipes[pipe].queue.push_back(instruction);
    if (timed.pipes[pipe].queue.size() == 1) {
        if (pipe == PIPE_V) return Advance(core, pipe, timed.now);
        Arm(core, pipe, timed.now);
    }
}

void Timeline::Arm(Core* core, int pipe, Picoseconds at) {
    bool& armed = At(core).pipes[pipe].armed;
    if (!armed) Plan(at, kAdvance, core, pipe);
    armed = true;
}

void Timeline::Vector(Core* core, hostsim_vector_kind kind, uint64_t bytes, Loc loc) {
    const double repeats = static_cast<double>((bytes + kRepeat - 1) / kRepeat);
    const Picoseconds busy = Cycles(std::max(1.0, repeats * machine_.vector_cycles[kind]));
    Push(core, PIPE_V, {TimedInstruction::kRun, 0, 0, busy, nullptr, loc});
}

void Timeline::Copy(Core* core, bool load, int memory_rank, uint64_t bytes, uint32_t number,
                    Loc loc) {
    const int pipe = load ? PIPE_MTE2 : PIPE_MTE3;
    TimedPipe& timed = At(core).pipes[pipe];
    timed.copies.push_back({number,
                            load,
                            memory_rank,
                            links_.Between(core->rank, memory_rank, load),
                            bytes,
                            bytes,
                            0,
                            -1,
                            bytes,
                            loc,
                            {}});
    Push(core, pipe, {TimedInstruction::kCopy, 0, 0, 0, &timed.copies.back(), loc});
}

void Timeline::Set(Core* core, int pipe, int flag, Loc loc) {
    Issue(core);
    if (pipe == PIPE_S) return Fire(core, flag, At(core).now);
    Push(core, pipe, {TimedInstruction::kSet, 0, flag, 0, nullptr, loc});
}

void Timeline::Wait(Core* core, int pipe, int flag, Loc loc) {
    Issue(core);
    if (pipe != PIPE_S)
        return Push(core, pipe, {TimedInstruction::kWait, 0, flag, 0, nullptr, loc});
    TimedCore& timed = At(core);
    Picoseconds at;
    while (!Take(timed, flag, &at)) Hold(core, Held::kFlag, flag);
    timed.now = std::max(timed.now, at) + Cycles(machine_.flag_cycles);
}

void Timeline::Drain(Core* core, int pipe) {
    Issue(core);
    if (pipe != PIPE_ALL)
        return Push(core, pipe, {TimedInstruction::kDrain, 0, 0, 0, nullptr, core->where});
    TimedCore& timed = At(core);
    const auto idle = [&] {
        return std::all_of(timed.pipes.begin(), timed.pipes.end(),
                           [](const TimedPipe& p) { return p.Idle(); });
    };
    if (!idle()) Hold(core, Held::kDrain, 0);
    for (const TimedPipe& p : timed.pipes) timed.now = std::max({timed.now, p.complete, p.free});
}

void Timeline::SyncAll(Core* last, Loc loc) {
    Picoseconds latest = 0;
    for (auto& other : last->launch->cores) latest = std::max(latest, At(other.get()).now);
    latest += static_cast<Picoseconds>(1000 * machine_.sync_all_ns);
    for (auto& other : last->launch->cores) {
        if (trace_)
            trace_->Add(other->rank, other->index, PIPE_S, "SyncAll", loc, At(other.get()).now,
                        latest);
        other->state = Core::State::kHeld;
        Resume(other.get(), latest);
    }
}

void Timeline::Watch(Core* core, int memory_rank) {
    TimedCore& timed = At(core);
    if (timed.polls_since < 0) timed.polls_since = timed.now;
    if (timed.watching) return;
    timed.watching = true;
    timed.landed = false;
    if (watching_.size() <= static_cast<size_t>(memory_rank)) watching_.resize(memory_rank + 1);
    watching_[memory_rank].push_back(core);
}

bool Timeline::Sleeps(Core* core) {
    TimedCore& timed = At(core);
    const bool sleeps = timed.watching && !timed.landed;
    timed.landed = false;
    if (!sleeps) timed.polls_since = -1;
    return sleeps;
}

// What lands wakes who polls there: at the first turn of its loop that begins after it.
void Timeline::Landed(int rank, uint64_t from, uint64_t to) {
    if (rank < 0 || watching_.size() <= static_cast<size_t>(rank)) return;
    for (Core* core : watching_[rank]) {
        const bool hit =
            std::any_of(core->poll_ranges.begin(), core->poll_ranges.end(),
                        [&](const auto& range) { return from < range.second && range.first < to; });
        if (!hit) continue;
        TimedCore& timed = At(core);
        timed.landed = true;
        if (core->state != Core::State::kPolling) continue;
        core->state = Core::State::kHeld;
        const Picoseconds turn = std::max(timed.now - timed.polls_since, Cycles(1));
        const Picoseconds turns = clock_ <= timed.now ? 0 : (clock_ - timed.now + turn - 1) / turn;
        const Picoseconds wakes = timed.now + turns * turn;
        if (trace_)
            trace_->Add(core->rank, core->index, PIPE_S, core->waiting_for.what, core->where,
                        timed.now, wakes);
        timed.polls_since = -1;
        Resume(core, wakes);
    }
}

bool Timeline::Skip() {
    bool any = false;
    for (auto& watchers : watching_) {
        for (Core* core : watchers) {
            if (core->state != Core::State::kPolling) continue;
            core->state = Core::State::kHeld;
            Resume(core, std::max(At(core).now, clock_) + kPatience);
            any = true;
        }
    }
    return any;
}

// --- launches ---

void Timeline::Start(Launch* launch) {
    Picoseconds& free = stream_free_[static_cast<uint64_t>(launch->rank) << 32 |
                                     static_cast<uint32_t>(launch->stream)];
    // The first ones of a run begin together, when all before has ended.
    const Picoseconds from = world_->quiet ? latest_ : std::max(free, clock_);
    launch->began = from + static_cast<Picoseconds>(1000 * machine_.launch_ns);
    free = launch->began;
    for (auto& core : launch->cores) {
        core->timed = std::make_unique<TimedCore>();
        core->timed->now = launch->began;
        core->state = Core::State::kHeld;
        Plan(launch->began, kResume, core.get());
    }
}

void Timeline::End(Launch* launch) {
    launch->ended = launch->began;
    for (auto& core : launch->cores) {
        launch->ended = std::max(launch->ended, At(core.get()).now);
        if (!At(core.get()).watching) continue;
        for (auto& watchers : watching_)
            watchers.erase(std::remove(watchers.begin(), watchers.end(), core.get()),
                           watchers.end());
    }
    stream_free_[static_cast<uint64_t>(launch->rank) << 32 |
                 static_cast<uint32_t>(launch->stream)] = launch->ended;
    latest_ = std::max(latest_, launch->ended);
}

std::string Timeline::Json(const Launch& launch) const {
    return "{\"began_us\":" + std::to_string(static_cast<double>(launch.began) / 1e6) +
           ",\"ended_us\":" + std::to_string(static_cast<double>(launch.ended) / 1e6) + "}";
}

// --- pipes ---

void Timeline::Fire(Core* core, int flag, Picoseconds at) {
    TimedCore& timed = At(core);
    timed.flags[flag].push_back(at);
    const int to = Core::EventTo(flag / kEventIds);
    if (to == PIPE_S) {
        if (timed.held == Held::kFlag && timed.held_for == flag) Resume(core, std::max(at, clock_));
    } else if (!timed.pipes[to].queue.empty() &&
               timed.pipes[to].queue.front().kind == TimedInstruction::kWait) {
        if (to == PIPE_V) return Advance(core, to, at);
        Arm(core, to, std::max(at, clock_));
    }
}

bool Timeline::Take(TimedCore& core, int flag, Picoseconds* at) {
    auto& set = core.flags[flag];
    size_t& taken = core.taken[flag];
    if (taken == set.size()) return false;
    *at = set[taken++];
    if (taken == set.size()) {
        set.clear();
        taken = 0;
    }
    return true;
}

// Works off the queue of a pipe as far as it can be at this time.
void Timeline::Advance(Core* core, int number, Picoseconds now) {
    TimedCore& timed = At(core);
    TimedPipe& pipe = timed.pipes[number];
    if (pipe.armed) return;
    while (!pipe.queue.empty()) {
        TimedInstruction& next = pipe.queue.front();
        if (number != PIPE_V && next.issued > now) return Arm(core, number, next.issued);
        switch (next.kind) {
            case TimedInstruction::kWait: {
                Picoseconds at;
                if (!Take(timed, next.flag, &at)) return;
                pipe.free = std::max({pipe.free, next.issued, at + Cycles(machine_.flag_cycles)});
                break;
            }
            case TimedInstruction::kSet: {
                const int flag = next.flag;
                const Picoseconds at = std::max({next.issued, pipe.free, pipe.complete});
                TimedCopy* before = nullptr;
                for (auto& copy : pipe.copies) {
                    if (copy.unsent != 0) break;
                    before = &copy;
                }
                pipe.queue.pop_front();
                if (before != nullptr) {
                    before->flags.push_back(flag);
                } else {
                    Fire(core, flag, at);
                }
                continue;
            }
            case TimedInstruction::kRun: {
                const bool idle = pipe.free < next.issued;
                const Picoseconds from = std::max(pipe.free, next.issued);
                pipe.free = from + next.busy + (idle ? Cycles(machine_.vector_head_cycles) : 0);
                pipe.complete = pipe.free + Cycles(machine_.vector_tail_cycles);
                if (trace_)
                    trace_->Add(core->rank, core->index, number, "vector", next.loc, from,
                                pipe.free);
                break;
            }
            case TimedInstruction::kDrain:
                if (!pipe.copies.empty() && pipe.copies.front().began >= 0) return;
                pipe.free = std::max({pipe.free, next.issued, pipe.complete});
                break;
            case TimedInstruction::kCopy:
                if (!Send(core, number, now)) return;
                break;
        }
        pipe.queue.pop_front();
    }
    CheckHeld(core, now);
}

// Sends chunks of the copy in front; true if all are on their way.
bool Timeline::Send(Core* core, int number, Picoseconds now) {
    TimedPipe& pipe = At(core).pipes[number];
    TimedInstruction& next = pipe.queue.front();
    TimedCopy& copy = *next.copy;
    if (copy.began < 0) {
        const Picoseconds from = std::max(next.issued, pipe.free);
        if (from > now) return Arm(core, number, from), false;
        copy.began = from;
        pipe.free = from + static_cast<Picoseconds>(1000 * machine_.copy_start_ns);
    }
    while (copy.unsent > 0) {
        if (pipe.free > now) return Arm(core, number, pipe.free), false;
        const uint64_t bytes = std::min(copy.unsent, kChunk);
        if (pipe.in_flight > 0 && pipe.in_flight + bytes > machine_.outstanding_bytes) return false;
        copy.unsent -= bytes;
        pipe.in_flight += bytes;
        ++copy.in_flight;
        pipe.free =
            std::max(pipe.free, now) +
            static_cast<Picoseconds>(1000.0 * static_cast<double>(bytes) / copy.path.core_rate);
        // A load's latency is there and back, of which nothing is left when the bytes are here; a
        // store is there after half of it, and the core knows after the other half.
        Plan(pipe.free + (copy.load ? copy.path.latency : copy.path.latency / 2), kAtLink, core,
             number, &copy, static_cast<uint32_t>(bytes));
    }
    return true;
}

// The chunk is over the link at this time. What is loaded has been read before it.
void Timeline::Across(const Event& event, Picoseconds at) {
    TimedCopy& copy = *event.copy;
    if (copy.load) return Plan(at, kReturned, event.core, event.pipe, &copy, event.bytes);
    copy.unlanded -= event.bytes;
    if (copy.unlanded == 0) return Plan(at, kInMemory, event.core, event.pipe, &copy, event.bytes);
    Plan(at + copy.path.latency / 2, kReturned, event.core, event.pipe, &copy, event.bytes);
}

void Timeline::Handle(const Event& event) {
    Core* core = event.core;
    switch (event.kind) {
        case kResume:
            break;
        case kCard:
            world_->cards->Take(static_cast<CardStep>(event.pipe), event.bytes);
            break;
        case kAdvance:
            At(core).pipes[event.pipe].armed = false;
            Advance(core, event.pipe, event.at);
            CheckHeld(core, event.at);
            break;
        case kAtLink: {
            TimedCopy& copy = *event.copy;
            const Links::Step step = links_.Leave(copy.path, core->rank, copy.memory_rank,
                                                  copy.load, event.bytes, event.at);
            if (copy.load) {
                copy.unlanded -= event.bytes;
                if (copy.unlanded == 0) core->LoadNow(copy.number);
            }
            if (!step.port) return Across(event, step.at);
            Plan(step.at, kAtPort, core, event.pipe, event.copy, event.bytes);
            break;
        }
        case kAtPort:
            return Across(event, links_.Reach(event.copy->path, core->rank, event.copy->memory_rank,
                                              event.copy->load, event.bytes, event.at));
        case kInMemory:
            core->StoreNow(event.copy->number);
            Plan(event.at + event.copy->path.latency / 2, kReturned, core, event.pipe, event.copy,
                 event.bytes);
            break;
        case kReturned: {
            TimedPipe& pipe = At(core).pipes[event.pipe];
            pipe.in_flight -= event.bytes;
            --event.copy->in_flight;
            Completed(core, event.pipe, event.at);
            Advance(core, event.pipe, event.at);
            CheckHeld(core, event.at);
            break;
        }
    }
}

// Copies are complete in order: a flag stands for all before it.
void Timeline::Completed(Core* core, int number, Picoseconds now) {
    TimedPipe& pipe = At(core).pipes[number];
    while (!pipe.copies.empty() && pipe.copies.front().Complete()) {
        TimedCopy& copy = pipe.copies.front();
        pipe.complete = std::max(pipe.complete, now);
        if (trace_)
            trace_->Add(core->rank, core->index, number, copy.load ? "load" : "store", copy.loc,
                        copy.began, now, copy.bytes);
        const std::vector<int> flags = std::move(copy.flags);
        pipe.copies.pop_front();
        for (int flag : flags) Fire(core, flag, now);
    }
}

void Timeline::CheckHeld(Core* core, Picoseconds now) {
    TimedCore& timed = At(core);
    if (timed.held == Held::kFullQueue &&
        timed.pipes[timed.held_for].queue.size() < machine_.queue_depth)
        return Resume(core, now);
    if (timed.held != Held::kDrain) return;
    for (const TimedPipe& pipe : timed.pipes) {
        if (!pipe.Idle()) return;
    }
    Resume(core, now);
}

Core* Timeline::Next() {
    while (!events_.empty()) {
        const Event event = events_.top();
        events_.pop();
        clock_ = event.at;
        if (event.kind == kResume) return event.core;
        Handle(event);
        ++world_->steps;
    }
    return nullptr;
}

}  // namespace hostsim
