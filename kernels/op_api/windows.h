// Where the HCCL windows of an EP group are.
//
// A window is the HCCL buffer of one rank, mapped into every process of its group: our kernels
// write into the windows of the other ranks and read their own. How a process gets the addresses
// depends on the CANN that is running, not on the one that compiled this library, so each way is a
// provider (a file in windows/) and the first one whose functions are there is asked. All functions
// are resolved by dlsym (cann/symbols.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "acl/acl.h"
#include "device/abi.h"

namespace ascend_moe {

// The HCCL windows of a group, as mapped into this process.
struct Windows {
    uint32_t rank = 0, ranks = 0;
    uint64_t bytes = 0;          // of one rank's window; what is usable in all of them
    std::vector<uint64_t> base;  // device address per rank
    // Private registered memory for control words per rank, where the provider has it; empty: none.
    std::vector<uint64_t> control;
    // Of a group that spans servers: what a network card needs. Then `base` is 0 for a rank in
    // another.
    CardContext card = {};
    std::string provider;                // for the log line
    uint32_t per_buffsize = 2;           // a window is so many times HCCL_BUFFSIZE
    const void* communicator = nullptr;  // whose windows they are
};

// What FindWindows returns when this CANN or chip has no way to them: the same on all ranks.
constexpr int kNoWindows = -2;

// Collective over the group, like every first use of a communicator. Fills `found`, or returns
// kNoWindows or an aclnn status (161002 / 561002) whose text names the group, what each provider
// lacked, and what to do. Not to be called while `stream` is being captured.
int FindWindows(const std::string& group, aclrtStream stream, Windows* found);

// The same for a group on several servers: the windows of the own server, and the queues that lead
// to the others. It makes the links that CANN's own kernels want for hierarchy, and on A2 no other
// kind can be had of that communicator afterwards: those of full mesh do not run on it.
int FindWindowsAndQueues(const std::string& group, aclrtStream stream, Windows* found);
// Why this CANN has none that it could find, the same on all ranks; empty if it may. Makes nothing.
std::string WhyNoQueues();

// The communicator that has this name now; null if none has. Cheap: asked at every call.
const void* CommunicatorOf(const std::string& group);

}  // namespace ascend_moe
