// Ranges for CANN's profiler (msprof, torch_npu.profiler), as CANN's own launches write them.
#pragma once

#include <cstdint>

namespace ascend_moe {

// The time from here to the end of the scope, under `name`. Costs two calls when CANN's profiling
// library is there, nothing otherwise.
//
//     const Range range("aclnnMoeDistributeDispatchV4");
class Range {
 public:
    explicit Range(const char* name);
    ~Range();
    Range(const Range&) = delete;
    Range& operator=(const Range&) = delete;

 private:
    const char* const name_;
    uint64_t begin_ = 0;
};

}  // namespace ascend_moe
