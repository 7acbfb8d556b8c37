// The one interface between the stand-in libraries, and between them and a kernel library.
//
// On hardware a kernel runs on the device: it may use device addresses, and the host may not. Here
// everything is host code, so the difference is kept by convention and enforced by memory
// protection: a device address is only a number to the host (touching it faults), and code that
// plays the device asks HostAddress() for memory it can touch.
//
//   HostAddress     device address -> address that device-side code may dereference
//   Launch          run device-side code on a stream, in order, on the stream's own thread
//   Group           the EP group behind a group name: own rank, every rank's window, a barrier
//   between the ranks
#pragma once

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "acl/acl.h"

namespace standin {

#define STANDIN_API __attribute__((visibility("default")))

// ---- errors
// ---------------------------------------------------------------------------------------------------------

// Remembers a message for aclGetRecentErrMsg of this thread and returns `code`, so that a function
// can `return Fail(ACL_ERROR_..., "which call: which value, which limit")`.
STANDIN_API int Fail(int code, const char* format, ...) __attribute__((format(printf, 2, 3)));
STANDIN_API std::string TakeRecentError();

// ---- options
// --------------------------------------------------------------------------------------------------------

// An integer environment variable; a value that is no integer is refused by name when the library
// starts using it.
STANDIN_API int64_t IntegerOption(const char* name, int64_t fallback);

// ---- versions (libascendcl)
// -----------------------------------------------------------------------------------------

// The CANN that is played: in what the versions differ, see ascendcl/version.cpp.
struct Cann {
    const char* version;  // as in ASCEND_MOE_VNPU_CANN
    bool kfc;             // HcclCommGetHandleWithName, HcclKfc..., HcclGetRemoteIpcHcclBuf
    bool whole_buffer;    // HcclGetHcclBuffer answers "in" and "out", not "in" alone
};
// Null when the variable names one that is not known; torch_npu then ends at aclInit, which says
// so.
STANDIN_API const Cann* PlayedCann();

// ---- devices (libascendcl)
// ------------------------------------------------------------------------------------------

// The device of this thread; negative when it has none and there is no default device.
STANDIN_API int CurrentDevice();
// How long a kernel may run before the hardware ends it. ASCEND_MOE_VNPU_OP_TIMEOUT_S, in seconds,
// stands above what the program has asked for.
STANDIN_API int64_t OperatorLimitMs();

// ---- servers (libascendcl)
// ------------------------------------------------------------------------------------------

// Where a device stands. A core reaches the memory of the devices in its pod, over HCCS: a pod is a
// server on A2, a super-pod on A3. All else is behind a network card.
struct Place {
    uint32_t server, pod;
};
STANDIN_API Place PlaceOf(int device);

// ---- memory (libascendcl)
// -------------------------------------------------------------------------------------------

// Null when [device_address, + bytes) is not inside one live device allocation or mapped window.
STANDIN_API void* HostAddress(const void* device_address, size_t bytes = 1);
// Gives `bytes` of memory at `host` a device address (an HCCL window). Undo with UnmapWindow.
// Without `host` they are addresses of a window behind a network card: HostAddress knows none.
STANDIN_API void* MapWindow(void* host, size_t bytes);
STANDIN_API void UnmapWindow(void* device_address);
// Whether an address lies in such a window.
STANDIN_API bool BehindCard(const void* device_address);

// ---- streams (libascendcl)
// ------------------------------------------------------------------------------------------

using Task = std::function<int()>;
// Queues `task`; while the stream is being captured the task is recorded instead and may run any
// number of times later. A non-zero result stops the stream: later tasks are skipped and every
// synchronisation returns that code.
STANDIN_API int Launch(aclrtStream stream, const char* name, Task task);
// For a call that is refused where nobody would hear of it, on torch_npu's queue thread: the next
// synchronisation of the stream fails with `text`, once, and the stream goes on.
STANDIN_API void Refuse(aclrtStream stream, const std::string& text);
// For a task that ends well, and whose outcome is to be told all the same: the next synchronisation
// of its stream fails with `code` and `text`, once, and the stream goes on.
STANDIN_API void TellAtSynchronisation(int code, const std::string& text);
// What was refused on the stream since, and nobody has been told; empty: nothing.
STANDIN_API std::string TakeRefusal(aclrtStream stream);

// ---- groups (libhccl)
// -----------------------------------------------------------------------------------------------

struct Window {
    void* device_address;  // what the host passes to a kernel
    void* host_address;    // what device-side code of this process may touch; null: out of reach
    size_t bytes;          // 2 x HCCL_BUFFSIZE
};

class STANDIN_API Group {
 public:
    // Null when this process has no communicator of that name.
    static std::shared_ptr<Group> Find(const std::string& name);

    virtual ~Group() = default;
    virtual uint32_t rank() const = 0;
    virtual uint32_t size() const = 0;
    // Of a rank in another pod there is an address for the network card alone.
    virtual Window window(uint32_t rank) const = 0;
    virtual Place place(uint32_t rank) const = 0;
    bool Reaches(uint32_t other) const { return place(other).pod == place(rank()).pod; }
    // What lies in the window of any rank, as a message of HCCL's would bring it.
    virtual void Receive(uint32_t rank, size_t offset, void* to, size_t bytes) const = 0;
    // Whether the process of that rank lives.
    virtual bool Alive(uint32_t rank) const = 0;
    // Waits until every rank of the group has come here, in kernels only (collectives have a
    // barrier of their own). Non-zero, with a message that names the rank, when a rank is gone or
    // does not come in time.
    virtual int KernelBarrier(const char* what) = 0;
    // For whoever plays the card: where the bytes are that an address of a window stands for, in
    // another server or not; null if it is none of this group's.
    virtual void* ForCard(const void* device_address, size_t bytes) = 0;
};

}  // namespace standin
