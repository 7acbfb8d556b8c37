// The few things that the library does on the device besides launching kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "acl/acl.h"
#include "launch.h"

namespace ascend_moe {

// Synchronous copies. A status without a text.
int CopyToDevice(uint64_t to, const void* from, size_t bytes);
int CopyFromDevice(void* to, uint64_t from, size_t bytes);

// Whether a status says that a stream is being captured into a graph, so that waiting is refused.
bool RefusedByCapture(int status);

// While it lives, this thread may wait although some stream is being captured: what it waits for is
// no part of the graph.
class BesideCapture {
 public:
    BesideCapture();
    ~BesideCapture();

 private:
    aclmdlRICaptureMode mode_ = ACL_MODEL_RI_CAPTURE_MODE_RELAXED;
    bool exchanged_ = false;
};

// A stream of its own for opening a group.
class OwnStream {
 public:
    OwnStream();
    ~OwnStream();
    aclrtStream get() const { return stream_; }
    // Launches and waits. A status with a text.
    int Run(const Launch& launch);

 private:
    aclrtStream stream_ = nullptr;
};

// Vector cores that the current thread may use, at most what the kernels know what to do with.
uint32_t GrantedCores();

}  // namespace ascend_moe
