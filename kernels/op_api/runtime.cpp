// See runtime.h.
#include "runtime.h"

#include <dlfcn.h>

#include <algorithm>

#include "device/abi.h"
#include "report.h"

namespace ascend_moe {
namespace {

// Functions that not every CANN from 8.5 on has.
template <typename Function>
Function Optional(const char* name) {
    return reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
}

aclError ExchangeMode(aclmdlRICaptureMode* mode) {
    using Function = aclError (*)(aclmdlRICaptureMode*);
    static const auto exchange = Optional<Function>("aclmdlRICaptureThreadExchangeMode");
    return exchange == nullptr ? ACL_ERROR_FEATURE_UNSUPPORTED : exchange(mode);
}

}  // namespace

int CopyToDevice(uint64_t to, const void* from, size_t bytes) {
    return aclrtMemcpy(reinterpret_cast<void*>(to), bytes, from, bytes, ACL_MEMCPY_HOST_TO_DEVICE);
}
int CopyFromDevice(void* to, uint64_t from, size_t bytes) {
    return aclrtMemcpy(to, bytes, reinterpret_cast<const void*>(from), bytes,
                       ACL_MEMCPY_DEVICE_TO_HOST);
}

bool RefusedByCapture(int status) {
    return status == ACL_ERROR_RT_STREAM_CAPTURED ||
           status == ACL_ERROR_RT_CAPTURE_MODE_NOT_SUPPORT;
}

BesideCapture::BesideCapture() { exchanged_ = ExchangeMode(&mode_) == ACL_SUCCESS; }
BesideCapture::~BesideCapture() {
    if (exchanged_) ExchangeMode(&mode_);
}

OwnStream::OwnStream() {
    if (aclrtCreateStream(&stream_) != ACL_SUCCESS) stream_ = nullptr;
}
OwnStream::~OwnStream() {
    if (stream_ != nullptr) aclrtDestroyStream(stream_);
}

int OwnStream::Run(const Launch& launch) {
    if (stream_ == nullptr) return Fail(kInnerError, "cannot create a stream");
    const int status = Start(launch, stream_);
    if (status != ACL_SUCCESS) return status;
    const int error = aclrtSynchronizeStream(stream_);
    if (error == ACL_SUCCESS) return ACL_SUCCESS;
    const std::string text = RuntimeText();
    return Fail(error, "%s", text.empty() ? "the stream ended without a text" : text.c_str());
}

int64_t OperatorLimitMs() {
    using Function = aclError (*)(uint32_t*);
    static const auto limit = Optional<Function>("aclrtGetOpExecuteTimeout");
    uint32_t limit_ms = 0;
    return limit != nullptr && limit(&limit_ms) == ACL_SUCCESS && limit_ms > 0 ? int64_t{limit_ms}
                                                                               : -1;
}

int WaitForDevice() { return aclrtSynchronizeDevice(); }

int TakeLastError() {
    using Function = aclError (*)(int level);
    constexpr int kThreadLevel = 0;  // ACL_RT_THREAD_LEVEL
    static const auto take = Optional<Function>("aclrtGetLastError");
    return take == nullptr ? ACL_SUCCESS : take(kThreadLevel);
}

uint32_t GrantedCores() {
    using Function = aclError (*)(aclrtDevResLimitType, uint32_t*);
    static const auto in_this_thread = Optional<Function>("aclrtGetResInCurrentThread");
    uint32_t cores = 0;
    if (in_this_thread == nullptr ||
        in_this_thread(ACL_RT_DEV_RES_VECTOR_CORE, &cores) != ACL_SUCCESS || cores == 0) {
        int32_t device = 0;
        int64_t count = 0;
        aclrtGetDevice(&device);
        const bool known =
            aclGetDeviceCapability(static_cast<uint32_t>(device), ACL_DEVICE_INFO_VECTOR_CORE_NUM,
                                   &count) == ACL_SUCCESS;
        cores = known ? static_cast<uint32_t>(count) : kMaxCores;
    }
    return std::clamp(cores, 1u, kMaxCores);
}

}  // namespace ascend_moe
