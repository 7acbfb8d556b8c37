// One vector core while it runs one kernel: unified buffer, pipes, copies in flight, scalar cache.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../api/types.h"
#include "core_memory.h"
#include "memory.h"
#include "timeline.h"

namespace hostsim {

// 256 bytes belong to the framework, and 8 KB to library functions unless a flag of CANN 9.2 is
// set.
constexpr uint32_t kUbUsable = kUbBytes - 256 - 8192;
constexpr int kEventIds = 8;
constexpr int kFreeEventIds = 6;  // 6 is reserved, 7 belongs to the compiler's own synchronisation

// For each pipe, the number of its instructions known to be complete.
using Clock = std::array<uint32_t, kPipes>;

struct Launch;
class World;

// What a core waits for; a text only when somebody asks.
struct Wait {
    const char* what = "";
    Loc at{"", 0};      // of the call, unless it is for a rank
    int64_t peer = -1;  // the rank
    uint32_t epoch = 0;
    std::string why;  // instead of all this
    std::string Text() const;
};

// A strided copy: `count` blocks of `bytes`, each `ub_pitch` further in UB and `gm_pitch` further
// in GM.
struct CopyShape {
    uint32_t ub;
    uint64_t gm;
    uint32_t count, bytes;
    uint64_t gm_pitch;
    uint32_t ub_pitch;
    uint32_t pad_bytes;  // loads: bytes behind each block that are filled or become undefined
};

class Core {
 public:
    Core(World* world, Launch* launch, int index);
    ~Core();

    World* world;
    Launch* launch;
    int rank, index;

    // --- UB and hazards (core.cpp) ---
    uint8_t* ub;

    // Starts an instruction on `pipe`; the accesses that follow belong to it.
    void Begin(pipe_t pipe, Loc loc);
    void Read(uint32_t at, uint32_t bytes);
    void Write(uint32_t at, uint32_t bytes);
    // Only checks: part of this instruction also writes there from another pipe, which has waited
    // for the vector unit if after_vector.
    void AlsoWrites(pipe_t pipe, uint32_t at, uint32_t bytes, bool after_vector);
    void MarkWritten(uint32_t at, uint32_t bytes, bool written);
    void Align(bool ok, const char* what);

    Clock Snapshot(pipe_t pipe) const;
    void Learn(pipe_t pipe,
               const Clock& clock);  // the waiting side of an event; forces the copies it covers
    void Barrier(pipe_t pipe, Loc loc);
    void SetFlag(int event, int id, Loc loc);
    void WaitFlag(int event, int id, Loc loc);
    // The same inside a queue step, which may be a mutation's site as a whole: then nothing is
    // learnt.
    void Raise(int event, int id, Loc loc);
    void Lower(int event, int id, Loc loc, bool learn);
    void Report(const char* kind, const std::string& text);
    void ReportAt(Loc loc, const char* kind, const std::string& text);
    Loc where{"", 0};

    // --- copies (transfer.cpp) ---
    void Load(const CopyShape& shape);
    void Store(const CopyShape& shape);
    void LoadNow(uint32_t number);  // with time: this load sees memory, this store is in memory
    void StoreNow(uint32_t number);
    bool LandOne();  // lets one piece in flight take effect; false if there is none
    void ForceStores(uint32_t up_to);  // until every store up to that instruction has landed
    void ForceLoads(uint32_t up_to);
    bool InFlight() const { return !stores_.empty() || !loads_.empty() || !cleaned_.empty(); }
    void ScalarRead(uint64_t address, void* to, uint32_t bytes, Loc loc);
    void ScalarWrite(uint64_t address, const void* from, uint32_t bytes, Loc loc);
    void CleanCache(uint64_t address, bool all, Loc loc);
    void ForceCleans();  // until every line cleaned so far is in memory
    void Finish();       // end of kernel: drain and check what must not be left

    // --- time (timeline.cpp) ---
    std::unique_ptr<TimedCore> timed;
    static int EventTo(int event);  // the pipe that waits

    // --- polling and barriers (world.cpp) ---
    int poll_depth = 0;
    uint64_t poll_version = 0;  // landings when the last poll paused
    std::vector<std::pair<uint64_t, uint64_t>> poll_ranges;
    Wait waiting_for;
    int64_t skipped_ticks = 0;  // that this core has passed without anything happening

    // --- queues and buffers ---
    uint32_t ub_top = 0;
    void* pipe = nullptr;  // the kernel's TPipe
    int queues_open = 0;
    Loc queue_where{"", 0};                    // the last AllocTensor
    void SpinForever(const std::string& why);  // a loop that only this core could end; no return
    float deq_scale = 0.0f;
    bool deq_scale_set = false;
    Atomic atomic = Atomic::kNone;  // of copies to GM
    Loc atomic_since{"", 0};
    void SetAtomic(Atomic kind, Loc loc) {
        atomic = kind;
        atomic_since = loc;
    }
    uint32_t phase = 0;

    // --- the fiber ---
    ucontext_t start{};  // how it begins
    jmp_buf place;       // where it goes on
    bool begun = false;
    uint8_t* Stack();
    bool noted = false;  // among those with copies in flight
    enum class State {
        kReady,
        kHeld,
        kPolling,
        kInSyncAll,
        kSpinning,
        kDone
    } state = State::kReady;

 private:
    struct Event {
        bool set = false;
        Clock clock{};
        Loc loc{"", 0};
    };
    struct Piece {  // of a store: bytes that land together
        uint32_t seq, generation;
        Atomic atomic;
        uint64_t gm;
        Loc loc;
        std::vector<uint8_t> bytes;
    };
    struct PendingLoad {
        uint32_t seq;
        CopyShape shape;
        bool poll;
        Loc loc;
        bool lazy;  // not before somebody waits for it
    };
    struct Line {
        std::array<uint8_t, kCacheLine> bytes, original;
        bool dirty;
        Loc loc;
    };

    const bool checks_;
    std::unique_ptr<CoreMemory> memory_;
    Clock known_[kPipes]{};
    std::vector<Loc> issued_at_[kPipes];  // where each instruction is, from number 1
    uint32_t issued_[kPipes]{};
    pipe_t pipe_ = PIPE_S;
    uint32_t seq_ = 0;
    std::array<std::array<Event, kEventIds>, static_cast<int>(AscendC::HardEvent::MAX)> events_;

    std::deque<Piece> stores_;
    std::deque<PendingLoad> loads_;
    uint32_t generation_ = 0;  // of stores: advanced by a barrier on MTE3
    std::map<uint64_t, Line> cache_;
    struct Cleaned {
        uint64_t base;
        Line line;
        Loc loc;
    };
    std::deque<Cleaned> cleaned_;  // on its way to memory

    std::string IssuedAt(int pipe, uint32_t seq) const;
    void CheckWrite(pipe_t pipe, const Clock& known, uint32_t at, uint32_t bytes);
    void RunLoad(const PendingLoad& load);
    void LandUnder(const PendingLoad& load);
    void LandPiece(size_t at);
    void MergePiece(Allocation& a, const Piece& piece);
    bool LandStore();
    Line& Cached(uint64_t address, const Allocation& a, Loc loc);
    void WriteBack(size_t at);
    void CheckGm(uint64_t address, uint64_t bytes, bool write, bool poll);
    void CheckOverlap(const Allocation& a, const BlockUse& last, bool write);
};

extern __thread Core* g_core;  // the core whose fiber runs

}  // namespace hostsim
