// What the providers of windows share. Each is a function that looks whether its CANN functions are
// there and, if so, asks them; windows.cpp knows the order.
#pragma once

#include <string>

#include "cann/symbols.h"
#include "windows.h"

namespace ascend_moe {

// How a provider ended. `absent` says that this CANN or chip does not have it, which is the same on
// all ranks, so all go on to the next. `unreachable` says that HCCL has links to all ranks, but not
// such that a core can write through them: no other way helps, and the next might not notice.
// `failed` ends the search, because the ranks may differ.
struct Attempt {
    enum { kFound, kAbsent, kUnreachable, kFailed } outcome;
    std::string why;

    static Attempt Found() { return {kFound, ""}; }
    static Attempt Absent(std::string why) { return {kAbsent, std::move(why)}; }
    static Attempt Unreachable(std::string why) { return {kUnreachable, std::move(why)}; }
    static Attempt Failed(std::string why) { return {kFailed, std::move(why)}; }
    // From a call that did not return HCCL_SUCCESS.
    static Attempt Of(const char* call, cann::HcclResult result);
};

using Provider = Attempt (*)(const std::string& group, aclrtStream stream, Windows* found);

Attempt FromKfc(const std::string& group, aclrtStream stream, Windows* found);
Attempt FromTiling(const std::string& group, aclrtStream stream, Windows* found);
// Of a group that spans servers, and its queues.
Attempt FromRdma(const std::string& group, aclrtStream stream, Windows* found);
Attempt FromVirtualNpu(const std::string& group, aclrtStream stream, Windows* found);

// The window of `rank`; the usable size is the smallest.
void SetWindow(Windows* windows, uint32_t rank, const void* address, uint64_t bytes);

}  // namespace ascend_moe
