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

// How long the hardware lets an operator run before it ends it, in milliseconds; negative where the
// runtime cannot be asked (aclrtGetOpExecuteTimeout is there from CANN 8.5 on: hicann/runtime
// v8.5.0 include/external/acl/acl_rt.h:4432). Never is UINT32_MAX.
int64_t OperatorLimitMs();

// Waits for all that is queued on this thread's device. A status without a text.
int WaitForDevice();

// The error of the runtime that this thread met last and that nobody has asked for; ACL_SUCCESS
// where the runtime does not tell. Forgets it. (hicann/runtime v8.5.0 acl_rt.h:875, 885.)
int TakeLastError();

// Vector cores that the current thread may use, at most what the kernels know what to do with.
uint32_t GrantedCores();

}  // namespace ascend_moe
