// All ranks in one process: streams of launches, the fibers of their cores, and the seed that
// decides who runs.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "card.h"
#include "core.h"
#include "findings.h"
#include "memory.h"
#include "timeline.h"

namespace hostsim {

struct Launch {
    uint32_t id;  // from 1
    int rank, stream, blocks;
    std::string name;
    std::function<void()> body;
    Loc entry{"kernel entry", 0};
    std::vector<std::unique_ptr<Core>> cores;
    int arrived = 0, left = 0;
    bool started = false, done = false;
    Counters counters;
    Picoseconds began = 0, ended = 0;  // with time
};

struct Schedule {
    uint64_t seed = 1;
    uint32_t landing_percent = 30;  // chance that a step lets one copy in flight take effect
    int stalled_rank =
        -1;  // does not run for stall_steps from stall_from on, unless nobody else can
    uint64_t stall_from = 0, stall_steps = 0;
    bool uneven = false;  // every rank and core has its own speed
    bool alone = false;   // one rank per process: nobody here wakes a core that polls
    bool unchecked =
        false;  // copies take effect at once, and of what is only judged nothing is kept
    uint64_t max_steps = 200'000'000;
    uint32_t patience = 0;  // so often, blocked everywhere (but for a stalled rank) only lets time
                            // pass
};

class World {
 public:
    explicit World(const Schedule& schedule);
    ~World();

    // Alone only, may be empty: is the process of the peer gone that this wait is for? Then the
    // core reaches its time limit at once.
    std::function<bool(const char* wait, uint32_t peer)> gone;

    const bool checks;
    GlobalMemory memory;
    std::unique_ptr<Cards> cards;        // once there is a queue or a second server
    std::unique_ptr<Timeline> timeline;  // if things take time
    bool quiet = true;                   // no launch of this run has ended yet
    Findings findings;
    uint64_t landings = 0;
    uint64_t drain_yield;  // one in so many pieces of a drain lets others run before the next:
                           // drawn from the seed
    uint64_t steps = 0;
    // GetSystemCycle: a tick is 20 ns of the core's simulated time if things take time; else a step
    // of the scheduler, or, alone, 20 ns of this machine's clock.
    int64_t Ticks(const Core* core) const;
    std::string deadlock;  // the report, if there was one
    std::string death;     // where the rank was that died last

    uint32_t Enqueue(int rank, int stream, int blocks, const std::string& name,
                     std::function<void()> body);
    // From that step on the rank is gone, at once and for ever.
    void LetDie(int rank, uint64_t step) {
        dying_rank_ = rank;
        dies_at_ = step;
        death.clear();
    }
    bool Run();  // until every launch is done, and every card; false on deadlock
    // Until every launch is done; after so many steps the cards stand still until the next run.
    bool RunKernels(uint64_t cards_stop);
    const Launch* Find(uint32_t id) const;
    void CountMessage(uint32_t launch, uint64_t bytes);

    // Mutation: the synchronisation call at this site ("file:line kind") does nothing.
    void Mutate(const std::string& site) {
        mutated_ = site;
        sites_.clear();
    }
    bool Mutated(Loc loc, const char* kind);
    std::string SitesJson() const;

    // For cores.
    uint64_t Random(uint64_t below) { return below <= 1 ? 0 : random_() % below; }
    bool Chance(uint64_t one_in) { return Random(one_in) == 0; }
    void MaybeYield(uint64_t one_in) {
        if (!checks || timeline) return;
        if (Chance(one_in)) Yield();
        if (cards && Chance(kNapOneIn)) Nap();
    }
    void Yield();
    void SyncAll(Core* core, Loc loc);
    void PollPause(Core* core, const char* wait, uint32_t peer, uint32_t epoch);
    void Landed(uint64_t from, uint64_t to);
    void NoteInFlight(Core* core);
    bool Active(uint32_t launch, int rank) const;
    int RankOf(uint64_t address);  // whose memory it is; -1 if nobody's

 private:
    static constexpr uint64_t kNapOneIn = 24, kNapSteps = 64;
    void Nap();
    Schedule schedule_;
    std::mt19937_64 random_;
    std::vector<std::unique_ptr<Launch>> launches_;
    size_t first_open_ = 0;
    std::vector<Core*> ready_, polling_, in_flight_;
    std::vector<uint32_t> speed_;
    int dying_rank_ = -1;
    uint64_t dies_at_ = 0;
    static constexpr uint64_t kNever = ~uint64_t{0};
    uint64_t cards_stop_ = kNever;
    jmp_buf main_;
    int64_t skipped_ticks_ = 0;
    uint32_t idle_polls_ = 0;  // since anything but polling happened
    void Idle(Core* core, const char* wait, uint32_t peer);
    std::string mutated_;
    struct Site {
        uint64_t reached = 0;
        bool dropped = false;
    };
    struct SiteKey {
        const char* file;
        int line;
        const char* kind;
        bool operator==(const SiteKey& other) const {
            return file == other.file && line == other.line && kind == other.kind;
        }
    };
    struct SiteHash {
        size_t operator()(const SiteKey& key) const {
            return reinterpret_cast<size_t>(key.file) * 31 + reinterpret_cast<size_t>(key.kind) +
                   static_cast<size_t>(key.line) * 0x9E3779B97F4A7C15;
        }
    };
    std::unordered_map<SiteKey, Site, SiteHash> sites_;  // as the code names them

    bool RunAll();
    bool CardsStep() { return cards && steps < cards_stop_ && cards->Step(); }
    void StartLaunches();
    bool Stalled(const Core* core) const;
    bool LetTimePass();
    bool RunTimed();
    void Die(int rank);
    bool LandSomething();
    void Switch(Core* core);
    void Retire(Core* core);
    std::string WhoWaits() const;
};

extern __thread World* g_world;  // of this thread of control

}  // namespace hostsim
