// A checked longjmp takes a jump between stacks for a mistake.
#undef _FORTIFY_SOURCE
#include "world.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>
#include <set>

namespace hostsim {

namespace {

constexpr int kVectorCores = 48;  // of one die of Atlas A3

void FiberEntry() {
    Core* core = g_core;
    core->launch->body();
    core->Finish();
    core->state = Core::State::kDone;
    g_world->Yield();
}

}  // namespace

__thread World* g_world = nullptr;

World::World(const Schedule& schedule)
    : checks(!schedule.unchecked), memory(checks), schedule_(schedule), random_(schedule.seed) {
    g_world = this;
    drain_yield = 1ull << Random(5);
}

World::~World() {
    launches_.clear();
    if (g_world == this) g_world = nullptr;
}

uint32_t World::Enqueue(int rank, int stream, int blocks, const std::string& name,
                        std::function<void()> body) {
    auto launch = std::make_unique<Launch>();
    launch->id = static_cast<uint32_t>(launches_.size()) + 1;
    launch->rank = rank;
    launch->stream = stream;
    launch->blocks = blocks;
    launch->name = name;
    launch->body = std::move(body);
    launches_.push_back(std::move(launch));
    return launches_.back()->id;
}

const Launch* World::Find(uint32_t id) const {
    return id >= 1 && id <= launches_.size() ? launches_[id - 1].get() : nullptr;
}

void World::CountMessage(uint32_t launch, uint64_t bytes) {
    Counters& counters = launches_[launch - 1]->counters;
    ++counters.messages;
    counters.message_bytes += bytes;
}

bool World::Active(uint32_t id, int rank) const {
    const Launch* launch = Find(id);
    return launch != nullptr && launch->rank == rank && launch->started && !launch->done;
}

bool World::Mutated(Loc loc, const char* kind) {
    auto [at, met_first] = sites_.try_emplace({loc.file, loc.line, kind});
    Site& site = at->second;
    if (met_first) site.dropped = loc.Text() + " " + kind == mutated_;
    ++site.reached;
    return site.dropped;
}

std::string World::SitesJson() const {
    std::map<std::string, uint64_t> sites;
    for (const auto& [key, site] : sites_)
        sites[Loc{key.file, key.line}.Text() + " " + key.kind] += site.reached;
    std::string out = "{";
    for (const auto& [site, times] : sites)
        out += (out.size() > 1 ? "," : "") + JsonString(site) + ":" + std::to_string(times);
    return out + "}";
}

void World::StartLaunches() {
    while (first_open_ < launches_.size() && launches_[first_open_]->done) ++first_open_;
    std::set<std::pair<int, int>> busy;
    for (size_t i = first_open_; i < launches_.size(); ++i) {
        Launch& launch = *launches_[i];
        if (launch.done) continue;
        if (!busy.insert({launch.rank, launch.stream}).second || launch.started) continue;
        launch.started = true;
        if (launch.blocks > kVectorCores) {
            findings.Add("launch", launch.name, launch.entry, launch.rank, 0,
                         "more blocks than the chip has vector cores");
        }
        for (int c = 0; c < launch.blocks; ++c) {
            auto core = std::make_unique<Core>(this, &launch, c);
            getcontext(&core->start);
            core->start.uc_stack.ss_sp = core->Stack();
            core->start.uc_stack.ss_size = kStackBytes;
            core->start.uc_link = nullptr;  // a fiber never returns
            makecontext(&core->start, FiberEntry, 0);
            if (!timeline) ready_.push_back(core.get());
            launch.cores.push_back(std::move(core));
        }
        if (timeline) timeline->Start(&launch);
    }
}

void World::Switch(Core* core) {
    g_core = core;
    if (_setjmp(main_) == 0) {
        if (core->begun) _longjmp(core->place, 1);
        core->begun = true;
        setcontext(&core->start);
    }
    g_core = nullptr;
}

void World::Yield() {
    if (_setjmp(g_core->place) == 0) _longjmp(main_, 1);
}

// Between two instructions a card may get much done.
void World::Nap() {
    for (uint64_t left = Random(kNapSteps); left > 0; --left) Yield();
}

void World::SyncAll(Core* core, Loc loc) {
    core->where = loc;
    if (Mutated(loc, "SyncAll")) return;
    Launch* launch = core->launch;
    if (core->index == 0) ++launch->counters.sync_alls;
    if (launch->left > 0) core->Report("launch", "waits in a SyncAll after another core has left");
    ++core->phase;
    if (++launch->arrived == launch->blocks) {
        launch->arrived = 0;
        if (timeline) {
            core->state = Core::State::kInSyncAll;
            timeline->SyncAll(core, loc);
            return Yield();
        }
        for (auto& other : launch->cores) {
            if (other->state == Core::State::kInSyncAll) {
                other->state = Core::State::kReady;
                ready_.push_back(other.get());
            }
        }
        return Yield();
    }
    core->state = Core::State::kInSyncAll;
    core->waiting_for = {"SyncAll", loc, -1, 0, ""};
    Yield();
}

void World::PollPause(Core* core, const char* wait, uint32_t peer, uint32_t epoch) {
    core->waiting_for = {wait, {"", 0}, peer, epoch, ""};
    if (timeline) {
        if (!timeline->Sleeps(core)) return core->poll_ranges.clear();
        core->state = Core::State::kPolling;
    } else if (schedule_.alone) {
        Idle(core, wait, peer);
    } else if (core->poll_version == landings) {
        // Sleep only if nothing at all has landed since the last pause; then what was polled is
        // what is there.
        core->state = Core::State::kPolling;
    }
    core->poll_version = landings;
    Yield();
    core->poll_ranges.clear();
}

// The peers are other processes, which need the processors of this machine. Pauses grow to a
// millisecond while nothing happens here, and now and then the peer is looked after. While the card
// has something under way there is work to do: who gave the processor away after every step of it
// would wait for its turn as often.
void World::Idle(Core* core, const char* wait, uint32_t peer) {
    constexpr uint32_t kYields = 64, kLookEvery = 64;
    constexpr int64_t kForever = int64_t{1} << 60;
    const bool busy = cards && cards->Busy();
    if (busy || core->poll_version != landings) idle_polls_ = 0;
    if (busy) return;
    if (++idle_polls_ <= kYields) {
        sched_yield();
        return;
    }
    const timespec pause = {0, std::min<long>(20'000 * (idle_polls_ - kYields), 1'000'000)};
    nanosleep(&pause, nullptr);
    if (idle_polls_ % kLookEvery == 0 && gone && gone(wait, peer)) core->skipped_ticks = kForever;
}

void World::Landed(uint64_t from, uint64_t to) {
    ++landings;
    if (timeline) return timeline->Landed(RankOf(from), from, to);
    for (size_t i = 0; i < polling_.size();) {
        Core* core = polling_[i];
        bool hit =
            std::any_of(core->poll_ranges.begin(), core->poll_ranges.end(),
                        [&](const auto& range) { return from < range.second && range.first < to; });
        if (hit) {
            core->state = Core::State::kReady;
            ready_.push_back(core);
            polling_.erase(polling_.begin() + i);
        } else {
            ++i;
        }
    }
}

void World::NoteInFlight(Core* core) {
    if (core->noted || !core->InFlight()) return;
    core->noted = true;
    in_flight_.push_back(core);
}

bool World::LandSomething() {
    if (cards && Chance(2) && CardsStep()) return true;
    while (!in_flight_.empty()) {
        size_t at = Random(in_flight_.size());
        if (in_flight_[at]->LandOne()) return true;
        in_flight_[at]->noted = false;
        in_flight_.erase(in_flight_.begin() + at);
    }
    return CardsStep();
}

void World::Retire(Core* core) {
    Launch* launch = core->launch;
    in_flight_.erase(std::remove(in_flight_.begin(), in_flight_.end(), core), in_flight_.end());
    if (launch->arrived > 0 && launch->arrived + launch->left + 1 == launch->blocks) {
        core->Report("launch", "left the kernel while other cores wait in a SyncAll");
    }
    if (++launch->left < launch->blocks) return;
    launch->done = true;
    quiet = false;
    if (timeline) timeline->End(launch);
    if (cards) cards->Ended(*launch);
    launch->cores.clear();
    StartLaunches();
}

int World::RankOf(uint64_t address) {
    const Allocation* a = memory.Find(address, 1);
    return a == nullptr ? -1 : a->rank;
}

int64_t World::Ticks(const Core* core) const {
    if (timeline) return timeline->Ticks(core);
    if (!schedule_.alone) return static_cast<int64_t>(steps) + skipped_ticks_;
    auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count() / 20 +
           core->skipped_ticks;
}

std::string World::WhoWaits() const {
    std::string out;
    for (auto& launch : launches_) {
        for (auto& core : launch->cores) {
            if (core->state == Core::State::kDone) continue;
            out += "rank " + std::to_string(core->rank) + " core " + std::to_string(core->index) +
                   " of " + launch->name + ": " + core->waiting_for.Text() + "\n";
        }
    }
    return out;
}

bool World::Stalled(const Core* core) const {
    return core->rank == schedule_.stalled_rank && steps >= schedule_.stall_from &&
           steps - schedule_.stall_from < schedule_.stall_steps;
}

// Nobody can go on before the clock does: kernels with a time limit see it. False if the patience
// is used up, or nobody polls.
bool World::LetTimePass() {
    if (schedule_.patience == 0) return false;
    if (timeline) {
        --schedule_.patience;
        return timeline->Skip();
    }
    if (polling_.empty()) return false;
    --schedule_.patience;
    skipped_ticks_ += 1'000'000;
    for (Core* core : polling_) core->state = Core::State::kReady;
    ready_.insert(ready_.end(), polling_.begin(), polling_.end());
    polling_.clear();
    return true;
}

// Of the copies under way some land and some never do; nothing of this rank runs again.
void World::Die(int rank) {
    const auto forget = [](std::vector<Core*>& cores, const Launch* launch) {
        cores.erase(std::remove_if(cores.begin(), cores.end(),
                                   [launch](const Core* core) { return core->launch == launch; }),
                    cores.end());
    };
    for (auto& launch : launches_) {
        if (launch->rank != rank || launch->done) continue;
        for (auto& core : launch->cores) {
            if (core->state == Core::State::kDone) continue;
            if (death.empty()) death = launch->name + " at " + core->where.Text();
            while (core->InFlight() && !Chance(4) && core->LandOne()) {
            }
        }
        if (death.empty()) death = launch->name + " at its beginning";
        for (auto* cores : {&ready_, &polling_, &in_flight_}) forget(*cores, launch.get());
        launch->cores.clear();
        launch->done = true;
    }
}

bool World::Run() {
    cards_stop_ = kNever;
    return RunAll();
}

bool World::RunKernels(uint64_t cards_stop) {
    cards_stop_ = steps + cards_stop;
    return RunAll();
}

bool World::RunAll() {
    g_world = this;
    if (schedule_.uneven && speed_.empty()) {
        for (int i = 0; i < 1024; ++i) speed_.push_back(1 + static_cast<uint32_t>(Random(8)));
    }
    quiet = true;
    StartLaunches();
    if (timeline) return RunTimed();
    while (true) {
        if (cards_stop_ != kNever && first_open_ == launches_.size()) return true;
        // What works on garbage from here on could take for ever.
        if (!mutated_.empty() && !findings.All().empty()) {
            deadlock = "the mutant was found out\n";
            return false;
        }
        if (++steps > schedule_.max_steps) {
            deadlock = "no progress within the step limit\n" + WhoWaits();
            return false;
        }
        if (steps == dies_at_) Die(dying_rank_);
        if (Random(100) < schedule_.landing_percent) LandSomething();
        if (ready_.empty()) {
            if (LandSomething()) continue;
            bool open = std::any_of(launches_.begin(), launches_.end(),
                                    [](const auto& l) { return !l->done; });
            if (!open) return true;
            if (cards && steps < cards_stop_ && cards->MoveLateTail()) continue;
            if (LetTimePass()) continue;
            deadlock = WhoWaits();
            return false;
        }
        // The clock of a time limit is far slower than a copy.
        if (schedule_.patience > 0 &&
            std::all_of(ready_.begin(), ready_.end(), [&](Core* core) { return Stalled(core); }) &&
            (LandSomething() || LetTimePass()))
            continue;
        size_t at = Random(ready_.size());
        for (int tries = 0; tries < 8; ++tries) {
            Core* candidate = ready_[at];
            bool slow = schedule_.uneven &&
                        Random(8) >= speed_[(candidate->rank * 31 + candidate->index) % 1024];
            if (!Stalled(candidate) && !slow) break;
            at = Random(ready_.size());
        }
        // Who is stalled goes on only if all are.
        for (size_t others = ready_.size() - 1; others > 0 && Stalled(ready_[at]); --others)
            at = (at + 1) % ready_.size();
        Core* core = ready_[at];
        ready_[at] = ready_.back();
        ready_.pop_back();
        Switch(core);
        switch (core->state) {
            case Core::State::kReady:
                ready_.push_back(core);
                break;
            case Core::State::kPolling:
                polling_.push_back(core);
                break;
            case Core::State::kHeld:
            case Core::State::kInSyncAll:
                break;
            case Core::State::kSpinning:
                // Alone, others of this launch may poll for long: it cannot end any more.
                if (!schedule_.alone) break;
                deadlock = WhoWaits();
                return false;
            case Core::State::kDone:
                Retire(core);
                break;
        }
    }
}

// The same by the clock: whoever's time comes next.
bool World::RunTimed() {
    while (true) {
        if (++steps > schedule_.max_steps) {
            deadlock = "no progress within the step limit\n" + WhoWaits();
            return false;
        }
        Core* core = timeline->Next();
        if (core == nullptr) {
            if (std::all_of(launches_.begin(), launches_.end(),
                            [](const auto& l) { return l->done; }))
                return true;
            if (LetTimePass()) continue;
            deadlock = WhoWaits();
            return false;
        }
        Switch(core);
        if (core->state == Core::State::kDone) Retire(core);
    }
}

}  // namespace hostsim
