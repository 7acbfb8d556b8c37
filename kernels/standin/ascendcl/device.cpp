// Devices: start and stop, the current device of a thread, what the chip is called and how large it
// is.
//
// Follows CANN in the point that torch_npu relies on: the current device belongs to the thread, and
// a thread that has not chosen one gets ACL_ERROR_RT_CONTEXT_NULL, not device 0. Unless the
// configuration given to aclInit names a default device, as torch_npu's does from CANN 8.3 on: then
// whatever needs a device chooses that one (hicann/runtime, 681ef7610:
// docs/zh/api_ref/02_initialization_and_deinitialization.md; runtime.cc, CurrentContext).
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <regex>
#include <sstream>

#include "arena.h"
#include "memory.h"
#include "moe_limits.h"
#include "servers.h"
#include "soc.h"
#include "standin.h"
#include "stream.h"

namespace standin {

namespace {

namespace limits = ascend_moe::limits;

constexpr Soc kSocs[] = {
    {"A3", "Ascend910_9392", 24, 48, limits::kCann91A3Hierarchy.ranks_per_server, true},
    {"A2", "Ascend910B3", 20, 40, limits::kCann91A2Hierarchy.ranks_per_server, false},
};

constexpr int kNoDevice = -1;
thread_local int current_device = kNoDevice;
std::atomic<int> default_device{kNoDevice};

// {"defaultDevice": {"default_device": "0"}} in the file that aclInit is given.
int DefaultDeviceOf(const char* configuration) {
    if (configuration == nullptr) return kNoDevice;
    std::stringstream text;
    text << std::ifstream(configuration).rdbuf();
    const std::string json = text.str();
    const std::regex item("\"default_device\"\\s*:\\s*\"([0-9]+)\"");
    std::smatch found;
    return std::regex_search(json, found, item) ? std::stoi(found[1]) : kNoDevice;
}

// The context handle of device d is d + 1: never null, and needs no storage.
aclrtContext ContextOf(int device) {
    return reinterpret_cast<aclrtContext>(static_cast<intptr_t>(device) + 1);
}

// The library that gives aten operators to the device links to torch, so it is loaded last, when
// torch_npu starts the runtime for the first time. It lies beside this library.
void LoadAtenOperators() {
    Dl_info self;
    dladdr(reinterpret_cast<void*>(&LoadAtenOperators), &self);
    std::string path = self.dli_fname;
    path = path.substr(0, path.rfind('/') + 1) + "libstandin_aten.so";
    if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
        fprintf(stderr, "[virtual NPU] aten operators are missing: %s\n", dlerror());
    }
}

}  // namespace

const Soc& CurrentSoc() {
    static const Soc& soc = []() -> const Soc& {
        const char* product = getenv("ASCEND_MOE_PRODUCT");
        for (const Soc& candidate : kSocs) {
            if (product != nullptr && strcasecmp(product, candidate.product) == 0) return candidate;
        }
        return kSocs[0];
    }();
    return soc;
}

int CurrentDevice() {
    if (current_device == kNoDevice) current_device = default_device;
    return current_device;
}

namespace {

// How long the hardware scheduler lets a kernel run: a multiple of its interval, at most 254 of
// them, which is also what holds where nobody has asked for less (hicann/runtime v9.1.0,
// src/runtime/config/910_B_93/dev_info_reg.cc: 1090921693.184 us; task_execute_time.cc). torch_npu
// asks for 547 s (npu_sys_ctrl.cpp, kMaxOpExecuteTimeOut).
constexpr uint64_t kIntervalUs = 4'294'967;
constexpr uint64_t kMaxOperatorUs = 1'090'921'693;
std::atomic<uint64_t> operator_us{kMaxOperatorUs};

uint64_t SetOperatorLimit(uint64_t asked_us) {
    const uint64_t intervals = (asked_us + kIntervalUs - 1) / kIntervalUs;
    operator_us =
        asked_us == 0 ? kMaxOperatorUs : std::min(intervals * kIntervalUs, kMaxOperatorUs);
    return operator_us;
}

}  // namespace

int64_t OperatorLimitMs() {
    static const int64_t chosen_s = IntegerOption("ASCEND_MOE_VNPU_OP_TIMEOUT_S", 0);
    return chosen_s > 0 ? chosen_s * 1000 : static_cast<int64_t>(operator_us / 1000);
}

}  // namespace standin

using standin::CurrentSoc;
using standin::Fail;

extern "C" {

aclError aclInit(const char* configuration) {
    if (standin::PlayedCann() == nullptr)
        return Fail(ACL_ERROR_INVALID_PARAM,
                    "ASCEND_MOE_VNPU_CANN=%s: no CANN of that version is played here",
                    getenv("ASCEND_MOE_VNPU_CANN"));
    const int wanted = standin::DefaultDeviceOf(configuration);
    if (wanted >= static_cast<int>(standin::DeviceCount()))
        return Fail(ACL_ERROR_INVALID_PARAM, "aclInit: %s: default_device %d, but there are %u",
                    configuration, wanted, standin::DeviceCount());
    const std::string unfit = standin::WrongSplit();
    if (!unfit.empty()) return Fail(ACL_ERROR_INVALID_PARAM, "aclInit: %s", unfit.c_str());
    standin::default_device = wanted;
    static std::once_flag once;
    std::call_once(once, standin::LoadAtenOperators);
    return ACL_SUCCESS;
}

aclError aclFinalize() { return ACL_SUCCESS; }

aclError aclrtGetDeviceCount(uint32_t* count) {
    *count = standin::DeviceCount();
    return ACL_SUCCESS;
}

aclError aclrtSetDevice(int32_t device) {
    if (device < 0 || static_cast<uint32_t>(device) >= standin::DeviceCount()) {
        return Fail(ACL_ERROR_RT_INVALID_DEVICEID,
                    "aclrtSetDevice: device %d, but there are %u devices (--devices)", device,
                    standin::DeviceCount());
    }
    standin::current_device = device;
    return ACL_SUCCESS;
}

aclError aclrtGetDevice(int32_t* device) {
    *device = standin::CurrentDevice();
    if (*device != standin::kNoDevice) return ACL_SUCCESS;
    return Fail(ACL_ERROR_RT_CONTEXT_NULL, "aclrtGetDevice: this thread has no device yet");
}

aclError aclrtResetDevice(int32_t) { return ACL_SUCCESS; }

aclError aclrtGetCurrentContext(aclrtContext* context) {
    if (standin::CurrentDevice() == standin::kNoDevice) {
        return Fail(ACL_ERROR_RT_CONTEXT_NULL,
                    "aclrtGetCurrentContext: this thread has no device yet");
    }
    *context = standin::ContextOf(standin::CurrentDevice());
    return ACL_SUCCESS;
}

aclError aclrtSetCurrentContext(aclrtContext context) {
    return aclrtSetDevice(static_cast<int32_t>(reinterpret_cast<intptr_t>(context) - 1));
}

aclError aclrtGetPrimaryCtxState(int32_t, uint32_t* flags, int32_t* active) {
    if (flags != nullptr) *flags = 0;
    *active = 1;
    return ACL_SUCCESS;
}

const char* aclrtGetSocName() { return CurrentSoc().name; }

aclError aclrtGetLogicDevIdByUserDevId(const int32_t user_device, int32_t* const logic_device) {
    *logic_device = user_device;
    return ACL_SUCCESS;
}

aclError aclrtDeviceCanAccessPeer(int32_t* can_access, int32_t device, int32_t peer) {
    *can_access = standin::PlaceOf(device).pod == standin::PlaceOf(peer).pod ? 1 : 0;
    return ACL_SUCCESS;
}

aclError aclrtDeviceEnablePeerAccess(int32_t, uint32_t) { return ACL_SUCCESS; }

aclError aclrtSetDeviceSatMode(aclrtFloatOverflowMode) { return ACL_SUCCESS; }
aclError aclrtSetOpWaitTimeout(uint32_t) { return ACL_SUCCESS; }

// In seconds; V2 in microseconds.
aclError aclrtSetOpExecuteTimeOut(uint32_t timeout) {
    standin::SetOperatorLimit(uint64_t{timeout} * 1'000'000);
    return ACL_SUCCESS;
}
aclError aclrtSetOpExecuteTimeOutV2(uint64_t timeout, uint64_t* actual) {
    const uint64_t set = standin::SetOperatorLimit(timeout);
    if (actual != nullptr) *actual = set;
    return ACL_SUCCESS;
}
aclError aclrtGetOpExecuteTimeout(uint32_t* timeout_ms) {
    *timeout_ms = static_cast<uint32_t>(standin::OperatorLimitMs());
    return ACL_SUCCESS;
}

aclError aclGetDeviceCapability(uint32_t, aclDeviceInfo info, int64_t* value) {
    switch (info) {
        case ACL_DEVICE_INFO_AI_CORE_NUM:
            *value = CurrentSoc().cube_cores;
            return ACL_SUCCESS;
        case ACL_DEVICE_INFO_VECTOR_CORE_NUM:
            *value = CurrentSoc().vector_cores;
            return ACL_SUCCESS;
        case ACL_DEVICE_INFO_L2_SIZE:
            *value = int64_t{192} << 20;
            return ACL_SUCCESS;
        default:
            return Fail(ACL_ERROR_INVALID_PARAM, "aclGetDeviceCapability: unknown item %d", info);
    }
}

aclError aclrtGetDeviceInfo(uint32_t, aclrtDevAttr attribute, int64_t* value) {
    switch (attribute) {
        case ACL_DEV_ATTR_AICORE_CORE_NUM:
        case ACL_DEV_ATTR_CUBE_CORE_NUM:
            *value = CurrentSoc().cube_cores;
            return ACL_SUCCESS;
        case ACL_DEV_ATTR_VECTOR_CORE_NUM:
            *value = CurrentSoc().vector_cores;
            return ACL_SUCCESS;
        case ACL_DEV_ATTR_TOTAL_GLOBAL_MEM_SIZE:
            *value = standin::Arena::Get().Total();
            return ACL_SUCCESS;
        default:
            return Fail(ACL_ERROR_INVALID_PARAM, "aclrtGetDeviceInfo: attribute %d is not modelled",
                        attribute);
    }
}

}  // extern "C"
