// Events: marks in a stream that the host or another stream can wait for.
//
// Each record is a new generation of the event. A wait refers to the generation that was current
// when it was called, and is done when that one has been passed. An error of the recording stream
// travels through the event to whoever waits.
#include <chrono>

#include "capture.h"
#include "stream.h"

namespace standin {

struct Event {
    std::mutex mutex;
    std::condition_variable changed;
    uint64_t recorded = 0;
    uint64_t completed = 0;
    std::chrono::steady_clock::time_point time;
    int error = ACL_SUCCESS;
    std::string message;
    CapturedMark captured;  // set while the last record belongs to a capture
};

namespace {

// Tasks in a queue keep their event alive after aclrtDestroyEvent.
using SharedEvent = std::shared_ptr<Event>;

const SharedEvent& Of(aclrtEvent handle) { return *static_cast<SharedEvent*>(handle); }

void Record(const SharedEvent& event, Stream& stream) {
    std::lock_guard<std::mutex> lock(event->mutex);
    event->captured = MarkIfCapturing(stream);
    if (event->captured.graph != nullptr) return;
    const uint64_t generation = ++event->recorded;
    const auto complete = [event, &stream, generation] {
        std::lock_guard<std::mutex> lock(event->mutex);
        event->error = stream.Error(&event->message);
        event->completed = generation;
        event->time = std::chrono::steady_clock::now();
        event->changed.notify_all();
        return ACL_SUCCESS;
    };
    stream.Push("aclrtRecordEvent", complete, /*always=*/true);
}

void WaitOn(Stream& stream, const SharedEvent& event, uint64_t generation) {
    const auto wait = [event, &stream, generation] {
        std::unique_lock<std::mutex> lock(event->mutex);
        event->changed.wait(lock, [&] { return event->completed >= generation; });
        if (event->error != ACL_SUCCESS) stream.Poison(event->error, event->message);
        return ACL_SUCCESS;
    };
    stream.Push("aclrtStreamWaitEvent", wait, /*always=*/true);
}

int RefuseIfCaptured(const char* call, Event& event) {
    if (event.captured.graph == nullptr) return ACL_SUCCESS;
    return Fail(ACL_ERROR_RT_EVENT_CAPTURED,
                "%s: the event was recorded in a stream that is being captured", call);
}

}  // namespace
}  // namespace standin

using standin::Event;
using standin::Fail;
using standin::Of;
using standin::SharedEvent;
using standin::Stream;

extern "C" {

aclError aclrtCreateEventExWithFlag(aclrtEvent* event, uint32_t) {
    *event = new SharedEvent(std::make_shared<Event>());
    return ACL_SUCCESS;
}
aclError aclrtCreateEventWithFlag(aclrtEvent* event, uint32_t flag) {
    return aclrtCreateEventExWithFlag(event, flag);
}
aclError aclrtCreateEvent(aclrtEvent* event) { return aclrtCreateEventExWithFlag(event, 0); }

aclError aclrtDestroyEvent(aclrtEvent event) {
    delete static_cast<SharedEvent*>(event);
    return ACL_SUCCESS;
}

aclError aclrtRecordEvent(aclrtEvent event, aclrtStream stream) {
    standin::Record(Of(event), Stream::Of(stream));
    return ACL_SUCCESS;
}

// A generation is never reused, so there is nothing to clear.
aclError aclrtResetEvent(aclrtEvent, aclrtStream) { return ACL_SUCCESS; }

aclError aclrtStreamWaitEvent(aclrtStream stream, aclrtEvent handle) {
    const SharedEvent shared = Of(handle);
    Event& event = *shared;
    uint64_t generation;
    standin::CapturedMark mark;
    {
        std::lock_guard<std::mutex> lock(event.mutex);
        generation = event.recorded;
        mark = event.captured;
    }
    Stream& waiting = Stream::Of(stream);
    if (mark.graph != nullptr) return standin::JoinCapture(waiting, mark);
    const int refused = standin::RefuseOutsideDependency(waiting, generation > 0);
    if (refused != ACL_SUCCESS || generation == 0) return refused;
    standin::WaitOn(waiting, shared, generation);
    return ACL_SUCCESS;
}

aclError aclrtSynchronizeEventWithTimeout(aclrtEvent handle, int32_t timeout_ms) {
    Event& event = *Of(handle);
    std::unique_lock<std::mutex> lock(event.mutex);
    const int refused = standin::RefuseIfCaptured("aclrtSynchronizeEvent", event);
    if (refused != ACL_SUCCESS) return refused;
    const uint64_t generation = event.recorded;
    const auto done = [&] { return event.completed >= generation; };
    if (timeout_ms < 0) {
        event.changed.wait(lock, done);
    } else if (!event.changed.wait_for(lock, std::chrono::milliseconds(timeout_ms), done)) {
        return Fail(ACL_ERROR_RT_EVENT_SYNC_TIMEOUT, "the event has not come after %d ms",
                    timeout_ms);
    }
    return event.error == ACL_SUCCESS ? ACL_SUCCESS
                                      : Fail(event.error, "%s", event.message.c_str());
}

aclError aclrtSynchronizeEvent(aclrtEvent event) {
    return aclrtSynchronizeEventWithTimeout(event, -1);
}

aclError aclrtQueryEventStatus(aclrtEvent handle, aclrtEventRecordedStatus* status) {
    Event& event = *Of(handle);
    std::lock_guard<std::mutex> lock(event.mutex);
    const int refused = standin::RefuseIfCaptured("aclrtQueryEventStatus", event);
    if (refused != ACL_SUCCESS) return refused;
    *status = event.completed >= event.recorded ? ACL_EVENT_RECORDED_STATUS_COMPLETE
                                                : ACL_EVENT_RECORDED_STATUS_NOT_READY;
    return ACL_SUCCESS;
}

aclError aclrtEventElapsedTime(float* milliseconds, aclrtEvent start, aclrtEvent end) {
    *milliseconds =
        std::chrono::duration<float, std::milli>(Of(end)->time - Of(start)->time).count();
    return ACL_SUCCESS;
}

}  // extern "C"
