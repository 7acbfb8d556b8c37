// Simulated time. Each pipe of each core is a queue of instructions that it works off in order, as
// the scalar unit has issued them; flags join pipes; copies go in chunks over memories and links
// that all cores share. The scalar unit is the fiber: it runs on, with a clock of its own, until it
// has to wait. Everything else is an event, taken in the order of its time. docs/hostsim.md,
// "Time".
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <queue>
#include <string>
#include <unordered_map>
#include <vector>

#include "../hostsim.h"
#include "findings.h"
#include "links.h"
#include "trace.h"

namespace hostsim {

class Core;
class World;
struct Launch;

struct TimedCopy {
    uint32_t number;  // of the instruction on its pipe
    bool load;
    int memory_rank;
    Path path;
    uint64_t unsent, unlanded;  // bytes not yet on their way, not yet in memory
    uint32_t in_flight = 0;     // chunks
    Picoseconds began = -1;
    uint64_t bytes;
    Loc loc;
    std::vector<int> flags;  // set when this copy and all before are complete
    bool Complete() const { return unsent == 0 && in_flight == 0; }
};

struct TimedInstruction {
    enum Kind { kRun, kCopy, kSet, kWait, kDrain } kind;
    Picoseconds issued;
    int flag = 0;
    Picoseconds busy = 0;  // kRun
    TimedCopy* copy = nullptr;
    Loc loc{"", 0};
};

struct TimedPipe {
    std::deque<TimedInstruction> queue;
    std::deque<TimedCopy> copies;  // begun or waiting, and not complete up to here
    bool armed = false;            // an event will advance it; nothing can before
    Picoseconds free = 0;          // the next instruction may start
    Picoseconds complete = 0;      // all that was started is complete, but for `copies`
    uint64_t in_flight = 0;        // bytes
    bool Idle() const { return queue.empty() && copies.empty(); }
};

// What the scalar unit is held up by.
enum class Held { kNo, kFlag, kDrain, kFullQueue };

struct TimedCore {
    static constexpr int kFlags = 12 * 8;
    Picoseconds now = 0;  // of the scalar unit
    std::array<TimedPipe, 4> pipes;
    std::array<std::vector<Picoseconds>, kFlags> flags;  // that are set: when
    std::array<size_t, kFlags> taken{};
    Held held = Held::kNo;
    int held_for = 0;              // the flag or the pipe
    Picoseconds polls_since = -1;  // this turn of a polling loop
    bool landed = false;           // something has, where this core has polled since
    bool watching = false;
};

class Timeline {
 public:
    Timeline(World* world, const hostsim_machine& machine);

    // --- cores, from their fibers ---
    void Scalar(Core* core);
    void ScalarMiss(Core* core);
    void Issue(Core* core);
    void Vector(Core* core, hostsim_vector_kind kind, uint64_t bytes, Loc loc);
    void Copy(Core* core, bool load, int memory_rank, uint64_t bytes, uint32_t number, Loc loc);
    void Set(Core* core, int pipe, int flag, Loc loc);
    void Wait(Core* core, int pipe, int flag, Loc loc);
    void Drain(Core* core, int pipe);   // PIPE_ALL: the scalar unit waits for all
    void SyncAll(Core* last, Loc loc);  // all cores of its launch are there
    // False if there was something new to see meanwhile.
    bool Sleeps(Core* core);
    void Watch(Core* core, int memory_rank);
    int64_t Ticks(const Core* core) const;

    // --- network cards: what one does next, at a time from now on ---
    enum class CardStep : uint8_t { kTake, kSend, kLand, kTail };
    void PlanCard(CardStep step, uint32_t queue, Picoseconds at);
    Picoseconds Now() const { return clock_; }
    // Sends a part of a message that has so many bytes left.
    Links::Part SendPart(int from, int to, uint64_t* left);
    Picoseconds NextMessage() const;  // from one of a queue to the next, at least
    Picoseconds OneWay() const;       // until what is across is seen; until the sender knows

    // --- the scheduler ---
    void Start(Launch* launch);
    void End(Launch* launch);
    // The core that goes on next, after all events before; nullptr if none will.
    Core* Next();
    void Landed(int rank, uint64_t from, uint64_t to);
    // Nothing will happen any more: whoever polls sees time pass. False if nobody does.
    bool Skip();

    std::string Json(const Launch& launch) const;
    Trace* trace() { return trace_.get(); }
    void StartTrace(int ranks);
    void WriteTrace(const std::string& path) const;

 private:
    enum Kind : uint8_t { kResume, kAdvance, kAtLink, kAtPort, kInMemory, kReturned, kCard };
    struct Event {
        Picoseconds at;
        uint64_t order;  // of two at the same time, the one that was planned first
        Kind kind;
        uint8_t pipe;    // of a card: its step
        uint32_t bytes;  // of a card: its queue
        Core* core;
        TimedCopy* copy;
        bool operator>(const Event& o) const { return at != o.at ? at > o.at : order > o.order; }
    };

    World* world_;
    const hostsim_machine machine_;
    Links links_;
    std::unique_ptr<Trace> trace_;
    std::priority_queue<Event, std::vector<Event>, std::greater<Event>> events_;
    uint64_t order_ = 0;
    Picoseconds clock_ = 0;   // of the last event
    Picoseconds latest_ = 0;  // end of the last launch
    std::unordered_map<uint64_t, Picoseconds> stream_free_;
    std::vector<std::vector<Core*>> watching_;  // by the rank whose memory they poll

    Picoseconds Cycles(double cycles) const {
        return static_cast<Picoseconds>(1000.0 * cycles / machine_.clock_ghz);
    }
    static TimedCore& At(Core* core);
    static const TimedCore& At(const Core* core);
    void Plan(Picoseconds at, Kind kind, Core* core, int pipe = 0, TimedCopy* copy = nullptr,
              uint32_t bytes = 0);
    void Hold(Core* core, Held held, int what);
    void Resume(Core* core, Picoseconds at);
    void Push(Core* core, int pipe, TimedInstruction instruction);
    void Arm(Core* core, int pipe, Picoseconds at);
    void Advance(Core* core, int pipe, Picoseconds now);
    bool Send(Core* core, int pipe, Picoseconds now);
    void Across(const Event& event, Picoseconds at);
    void Fire(Core* core, int flag, Picoseconds at);
    bool Take(TimedCore& core, int flag, Picoseconds* at);
    void Completed(Core* core, int pipe, Picoseconds now);
    void CheckHeld(Core* core, Picoseconds now);
    void Handle(const Event& event);
};

}  // namespace hostsim
