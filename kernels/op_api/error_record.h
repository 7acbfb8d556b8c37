// What is left when a kernel gave up: a text, and a small file that outlives the process, for
// ascend-moe doctor (ascend_moe/hardware/error_record.py).
#pragma once

#include <cstdint>
#include <string>

namespace ascend_moe {

struct GaveUp {
    std::string group;
    uint32_t ep_rank;
    const uint32_t* record;  // an error block, device/abi.h
    int64_t waited_s;        // the time limit of its launch
};

std::string Text(const GaveUp& event);
// Of a rank that the others have left out; `by` is one of them.
std::string TextOfLeftOut(const std::string& group, uint32_t ep_rank, uint32_t by);
// Writes the file, ~/.cache/ascend-moe/errors/<time>-<pid>.json, if that is possible.
void Remember(const GaveUp& event);

}  // namespace ascend_moe
