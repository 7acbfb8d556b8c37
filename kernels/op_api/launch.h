// Starting a kernel on a stream: with bisheng's launch on an NPU (npu/), in hostsim on the virtual
// NPU (host/).
//
// A launch is asynchronous and complete in itself: device addresses, and one struct by value. A
// graph that records it may run it again at any time.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "acl/acl.h"

namespace ascend_moe {

class Group;

enum class Kernel {
    kMeet,
    kOpen,
    kTell,
    kPack,
    kDispatch,
    kCombine,
    kHierarchyOpen,
    kHierarchyDispatch,
    kHierarchyCombine,
    kMeshOpen,
    kMeshDispatch,
    kMeshCombine,
    kCores,
    kRow,
    kPingPong,
    kMeasure
};

// Device memory that a kernel may touch; all zero for a tensor that is absent.
struct Operand {
    const char* name;
    uint64_t address;
    uint64_t bytes;
};

struct Launch {
    Kernel kernel;
    uint32_t blocks;
    std::vector<Operand> operands;  // in the order of the entry point in device/moe_kernels.cpp
    std::vector<uint64_t> value;    // the struct behind them, in whole words
    std::shared_ptr<const Group> group;

    template <typename Struct>
    void Pass(const Struct& by_value) {
        value.assign((sizeof(by_value) + 7) / 8, 0);
        memcpy(value.data(), &by_value, sizeof(by_value));
    }
};

// The name of its entry point.
const char* NameOf(Kernel kernel);

// ACL_SUCCESS, or a status with a text (launch.cpp).
int Start(const Launch& launch, aclrtStream stream);
// Its part that differs; a failure is left in the last error of the thread.
void Enqueue(const Launch& launch, aclrtStream stream);

// Whether the process of a rank is known to have ended; on an NPU nobody knows.
bool ProcessEnded(const std::string& group, uint32_t rank);

// TASK_QUEUE_ENABLE=2 runs phase one on torch_npu's queue thread, which raises without the text of
// a failure. Where a stream can fail with a text, phase two lets it: on the virtual NPU.
bool StreamsShowFailures();
int StartFailing(const char* name, int status, const std::string& text, aclrtStream stream);

}  // namespace ascend_moe
