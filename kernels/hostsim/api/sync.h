// Synchronisation inside a core and between the cores of a launch; system variables.
#pragma once

#include "../sim/world.h"
#include "types.h"

namespace AscendC {

template <HardEvent event>
inline void SetFlag(int32_t id, hostsim::Loc loc = hostsim::Loc::Here()) {
    hostsim::g_core->SetFlag(static_cast<int>(event), id, loc);
}

template <HardEvent event>
inline void WaitFlag(int32_t id, hostsim::Loc loc = hostsim::Loc::Here()) {
    hostsim::g_core->WaitFlag(static_cast<int>(event), id, loc);
}

template <pipe_t pipe>
inline void PipeBarrier(hostsim::Loc loc = hostsim::Loc::Here()) {
    hostsim::g_core->Barrier(pipe, loc);
}

// Every core of the launch must call it equally often. It does not drain copies.
template <bool is_aiv_only = true>
inline void SyncAll(hostsim::Loc loc = hostsim::Loc::Here()) {
    static_assert(is_aiv_only, "vector cores only");
    hostsim::g_world->SyncAll(hostsim::g_core, loc);
}

inline int64_t GetBlockIdx() { return hostsim::g_core->index; }
inline int64_t GetBlockNum() { return hostsim::g_core->launch->blocks; }

// 50 ticks per microsecond on the device. World::Ticks says what a tick is here.
inline int64_t GetSystemCycle() {
    ++hostsim::g_core->launch->counters.clock_reads;
    return hostsim::g_world->Ticks(hostsim::g_core);
}

}  // namespace AscendC

namespace hostsim {

// GM reads inside are polls: they may see memory nobody wrote.
struct PollScope {
    PollScope() { ++g_core->poll_depth; }
    ~PollScope() { --g_core->poll_depth; }
};

// A flag between ranks, and where the code posts it or waits for it: a site that a mutation may
// drop.
struct RankFlag {
    const char* name;
    Loc loc;
};
inline bool WaitDropped(const RankFlag& what) { return g_world->Mutated(what.loc, "wait"); }
inline bool PostDropped(const RankFlag& what) { return g_world->Mutated(what.loc, "post"); }

// The poll saw nothing new: let others run until something lands there.
inline void PollPause(const char* name, uint32_t peer, uint32_t epoch) {
    g_world->PollPause(g_core, name, peer, epoch);
}
inline void PollPause(const RankFlag& what, uint32_t peer, uint32_t epoch) {
    PollPause(what.name, peer, epoch);
}

}  // namespace hostsim
