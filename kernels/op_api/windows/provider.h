// What the providers of windows share. Each is a function that looks whether its CANN functions are
// there and, if so, asks them; windows.cpp knows the order.
#pragma once

#include <string>

#include "cann/symbols.h"
#include "windows.h"

namespace ascend_moe {

// How a provider ended. `absent` says that this CANN or chip does not have it, which is the same on
// all ranks, so all go on to the next; `failed` ends the search, because the ranks may differ.
struct Attempt {
    enum { kFound, kAbsent, kFailed } outcome;
    std::string why;

    static Attempt Found() { return {kFound, ""}; }
    static Attempt Absent(std::string why) { return {kAbsent, std::move(why)}; }
    static Attempt Failed(std::string why) { return {kFailed, std::move(why)}; }
    // From a call that did not return HCCL_SUCCESS.
    static Attempt Of(const char* call, cann::HcclResult result);
};

using Provider = Attempt (*)(const std::string& group, aclrtStream stream, Windows* found);

Attempt FromKfc(const std::string& group, aclrtStream stream, Windows* found);
Attempt FromChannels(const std::string& group, aclrtStream stream, Windows* found);
Attempt FromTiling(const std::string& group, aclrtStream stream, Windows* found);
Attempt FromVirtualNpu(const std::string& group, aclrtStream stream, Windows* found);

// For the two providers of CANN 9: the communicator behind the name, own rank and number of ranks,
// own buffer at base[rank], and room for the others.
Attempt OpenGroup(const std::string& group, cann::HcclComm* comm, Windows* found);
// The window of `rank`; the usable size is the smallest.
void SetWindow(Windows* windows, uint32_t rank, const void* address, uint64_t bytes);

}  // namespace ascend_moe
