// Streams: a thread per stream works off its tasks in order, and streams run side by side.
//
// So a program that forgets to synchronise reads old data here as it may on hardware.
// ASCEND_MOE_VNPU_DELAY_US=n sleeps up to n microseconds before each task and makes that likely. A
// thread starts with the first task, because torch_npu creates whole pools of streams that it never
// uses.
//
// A task that fails stops its stream: what is queued behind it is skipped, and each synchronisation
// returns the error and its text, as after an exception of an AI core. A call that was refused does
// not: who synchronises next is told, and that is all.
#include "stream.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <map>
#include <random>
#include <set>
#include <thread>
#include <utility>

#include "capture.h"
#include "memory.h"
#include "soc.h"

namespace standin {
namespace {

// Leaked: streams are used from static destructors of torch_npu, and their threads never end.
struct Registry {
    std::mutex mutex;
    std::set<Stream*> streams;
    std::map<int, Stream*> defaults;
    int next_id = 0;
};

Registry& Streams() {
    static Registry* registry = new Registry();
    return *registry;
}

// Whose limits on cores hold for what this thread launches; null: those of the device.
thread_local Stream* limiting_stream = nullptr;
// Whose tasks this thread works off.
thread_local Stream* working_stream = nullptr;

aclError Create(aclrtStream* handle) {
    if (CurrentDevice() < 0)
        return Fail(ACL_ERROR_RT_CONTEXT_NULL, "aclrtCreateStream: this thread has no device yet");
    Registry& registry = Streams();
    std::lock_guard<std::mutex> lock(registry.mutex);
    Stream* stream = new Stream(CurrentDevice(), registry.next_id++);
    registry.streams.insert(stream);
    *handle = stream;
    return ACL_SUCCESS;
}

// The thread of a destroyed stream may still be at work, so the object stays.
aclError Destroy(aclrtStream handle) {
    Registry& registry = Streams();
    std::lock_guard<std::mutex> lock(registry.mutex);
    if (registry.streams.erase(static_cast<Stream*>(handle)) == 1) return ACL_SUCCESS;
    return Fail(ACL_ERROR_RT_PARAM_INVALID, "aclrtDestroyStream: %p is no stream", handle);
}

void RandomDelay() {
    static const int64_t longest = IntegerOption("ASCEND_MOE_VNPU_DELAY_US", 0);
    if (longest <= 0) return;
    static thread_local std::minstd_rand random(std::random_device{}());
    usleep(std::uniform_int_distribution<int64_t>(0, longest)(random));
}

aclError SynchronizeStream(aclrtStream handle, int timeout_ms) {
    Stream& stream = Stream::Of(handle);
    const int refused = RefuseOnCapturingStream("aclrtSynchronizeStream", stream);
    return refused != ACL_SUCCESS ? refused : stream.Synchronize(timeout_ms);
}

aclError SynchronizeDevice(int timeout_ms) {
    const int refused = RefuseDuringCapture("aclrtSynchronizeDevice");
    if (refused != ACL_SUCCESS) return refused;
    std::set<Stream*> streams;
    {
        Registry& registry = Streams();
        std::lock_guard<std::mutex> lock(registry.mutex);
        streams = registry.streams;
    }
    int first = ACL_SUCCESS;
    for (Stream* stream : streams) {
        if (stream->device() != CurrentDevice()) continue;
        const int error = stream->Synchronize(timeout_ms);
        if (first == ACL_SUCCESS) first = error;
    }
    return first;
}

}  // namespace

Stream& Stream::Of(aclrtStream handle) {
    if (handle != nullptr) return *static_cast<Stream*>(handle);
    Registry& registry = Streams();
    std::lock_guard<std::mutex> lock(registry.mutex);
    Stream*& stream = registry.defaults[CurrentDevice()];
    if (stream == nullptr) {
        stream = new Stream(CurrentDevice(), registry.next_id++);
        registry.streams.insert(stream);
    }
    return *stream;
}

void Stream::Push(const char* name, Task task, bool always) {
    std::lock_guard<std::mutex> lock(mutex_);
    queue_.push_back({name, std::move(task), always});
    if (!started_) {
        started_ = true;
        std::thread(&Stream::Work, this).detach();
    }
    changed_.notify_all();
}

void Stream::Work() {
    aclrtSetDevice(device_);
    working_stream = this;
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
        changed_.wait(lock, [this] { return !queue_.empty(); });
        Item item = std::move(queue_.front());
        queue_.pop_front();
        busy_ = true;
        if (error_ == ACL_SUCCESS || item.always) {
            lock.unlock();
            RandomDelay();
            const int error = item.run();
            item.run = nullptr;
            std::string text = error == ACL_SUCCESS ? "" : TakeRecentError();
            lock.lock();
            if (error != ACL_SUCCESS && error_ == ACL_SUCCESS) {
                error_ = error;
                message_ = std::string(item.name) + " failed on stream " + std::to_string(id_) +
                           ": " + text;
            }
        }
        busy_ = false;
        changed_.notify_all();
    }
}

int Stream::Synchronize(int timeout_ms) {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto idle = [this] { return queue_.empty() && !busy_; };
    if (timeout_ms < 0) {
        changed_.wait(lock, idle);
    } else if (!changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), idle)) {
        return Fail(ACL_ERROR_RT_STREAM_SYNC_TIMEOUT, "stream %d is not done after %d ms", id_,
                    timeout_ms);
    }
    if (error_ != ACL_SUCCESS) return Fail(error_, "%s", message_.c_str());
    if (told_ != ACL_SUCCESS)
        return Fail(std::exchange(told_, ACL_SUCCESS), "%s", told_text_.c_str());
    if (refusal_.empty()) return ACL_SUCCESS;
    return Fail(ACL_ERROR_OP_NOT_FOUND, "%s", std::exchange(refusal_, {}).c_str());
}

bool Stream::Idle() {
    std::lock_guard<std::mutex> lock(mutex_);
    return queue_.empty() && !busy_;
}

void Stream::Poison(int code, const std::string& message) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (error_ != ACL_SUCCESS) return;
    error_ = code;
    message_ = message;
}

int Stream::Error(std::string* message) {
    std::lock_guard<std::mutex> lock(mutex_);
    *message = message_;
    return error_;
}

void Stream::TellAtSynchronisation(int code, const std::string& text) {
    std::lock_guard<std::mutex> lock(mutex_);
    told_ = code;
    told_text_ = text;
}

void Stream::Refuse(const std::string& text) {
    std::lock_guard<std::mutex> lock(mutex_);
    refusal_ = text;
}

std::string Stream::TakeRefusal() {
    std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(refusal_, {});
}

void Refuse(aclrtStream stream, const std::string& text) { Stream::Of(stream).Refuse(text); }
void TellAtSynchronisation(int code, const std::string& text) {
    working_stream->TellAtSynchronisation(code, text);
}
std::string TakeRefusal(aclrtStream stream) { return Stream::Of(stream).TakeRefusal(); }

int Launch(aclrtStream handle, const char* name, Task task) {
    Stream& stream = Stream::Of(handle);
    if (RecordIfCapturing(stream, task)) return ACL_SUCCESS;
    stream.Push(name, std::move(task));
    return ACL_SUCCESS;
}

}  // namespace standin

using standin::Fail;
using standin::Stream;

extern "C" {

aclError aclrtCreateStream(aclrtStream* stream) { return standin::Create(stream); }
aclError aclrtCreateStreamWithConfig(aclrtStream* stream, uint32_t, uint32_t) {
    return standin::Create(stream);
}
aclError aclrtDestroyStream(aclrtStream stream) { return standin::Destroy(stream); }
aclError aclrtDestroyStreamForce(aclrtStream stream) { return standin::Destroy(stream); }

aclError aclrtSynchronizeStream(aclrtStream stream) {
    return standin::SynchronizeStream(stream, -1);
}
aclError aclrtSynchronizeStreamWithTimeout(aclrtStream stream, int32_t timeout_ms) {
    return standin::SynchronizeStream(stream, timeout_ms);
}
aclError aclrtSynchronizeDevice() { return standin::SynchronizeDevice(-1); }
aclError aclrtSynchronizeDeviceWithTimeout(int32_t timeout_ms) {
    return standin::SynchronizeDevice(timeout_ms);
}

aclError aclrtStreamQuery(aclrtStream stream, aclrtStreamStatus* status) {
    *status = Stream::Of(stream).Idle() ? ACL_STREAM_STATUS_COMPLETE : ACL_STREAM_STATUS_NOT_READY;
    return ACL_SUCCESS;
}

aclError aclrtStreamGetId(aclrtStream stream, int32_t* id) {
    *id = Stream::Of(stream).id();
    return ACL_SUCCESS;
}

aclError aclrtLaunchHostFunc(aclrtStream stream, aclrtHostFunc function, void* argument) {
    return standin::Launch(stream, "aclrtLaunchHostFunc", [=] {
        function(argument);
        return ACL_SUCCESS;
    });
}

// Failure mode, overflow switch and attributes change nothing here: a failing task always stops its
// stream.
aclError aclrtSetStreamFailureMode(aclrtStream, uint64_t) { return ACL_SUCCESS; }
aclError aclrtSetStreamAttribute(aclrtStream, aclrtStreamAttr, aclrtStreamAttrValue*) {
    return ACL_SUCCESS;
}
aclError aclrtSetStreamOverflowSwitch(aclrtStream, uint32_t) { return ACL_SUCCESS; }

aclError aclrtGetDeviceResLimit(int32_t, aclrtDevResLimitType type, uint32_t* value) {
    const standin::Soc& soc = standin::CurrentSoc();
    *value = type == ACL_RT_DEV_RES_CUBE_CORE ? soc.cube_cores : soc.vector_cores;
    return ACL_SUCCESS;
}

aclError aclrtGetStreamResLimit(aclrtStream stream, aclrtDevResLimitType type, uint32_t* value) {
    const uint32_t limit = Stream::Of(stream).core_limit[type == ACL_RT_DEV_RES_CUBE_CORE ? 0 : 1];
    if (limit == 0) return aclrtGetDeviceResLimit(0, type, value);
    *value = limit;
    return ACL_SUCCESS;
}

aclError aclrtSetStreamResLimit(aclrtStream stream, aclrtDevResLimitType type, uint32_t value) {
    Stream::Of(stream).core_limit[type == ACL_RT_DEV_RES_CUBE_CORE ? 0 : 1] = value;
    return ACL_SUCCESS;
}

aclError aclrtResetStreamResLimit(aclrtStream stream) {
    Stream::Of(stream).core_limit[0] = Stream::Of(stream).core_limit[1] = 0;
    return ACL_SUCCESS;
}

aclError aclrtUseStreamResInCurrentThread(aclrtStream stream) {
    standin::limiting_stream = &Stream::Of(stream);
    return ACL_SUCCESS;
}
aclError aclrtUnuseStreamResInCurrentThread(aclrtStream) {
    standin::limiting_stream = nullptr;
    return ACL_SUCCESS;
}

aclError aclrtGetResInCurrentThread(aclrtDevResLimitType type, uint32_t* value) {
    if (standin::limiting_stream == nullptr) return aclrtGetDeviceResLimit(0, type, value);
    return aclrtGetStreamResLimit(standin::limiting_stream, type, value);
}

}  // extern "C"
