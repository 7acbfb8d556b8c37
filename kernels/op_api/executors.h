// What phase one leaves for phase two. Between them torch_npu only carries a pointer, which may be
// ours or CANN's: ours are known by number here, and never dereferenced to find out.
#pragma once

#include <cstdint>
#include <string>

#include "entry/calls.h"
#include "tiling.h"

namespace ascend_moe {

struct Prepared {
    Plan plan;
    int status = 0;    // of a phase one whose failure phase two shows, see launch.h
    std::string text;  // of that failure
};

// Ours from now on, until it is taken.
aclOpExecutor* Remember(Prepared prepared);
// False for an executor that is not ours.
bool Take(aclOpExecutor* executor, Prepared* prepared);

}  // namespace ascend_moe
