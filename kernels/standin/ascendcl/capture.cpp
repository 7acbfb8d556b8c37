// Graph capture: aclmdlRICaptureBegin .. End records what is launched, aclmdlRIExecuteAsync runs it
// again.
//
// A graph is the list of tasks in the order of their launch, over all streams that took part; that
// order respects every dependency between the streams, so a replay runs the list as one task. Tasks
// hold addresses, not tensors: a replay reads what the memory holds then.
//
// Refused, as by CANN: waiting for a captured stream or event, for the device, or copying
// synchronously, from the capturing thread (mode global: from any thread); depending on an event
// from outside of the capture; ending a capture on another stream or with a stream that was forked
// off and never joined. A refused wait spoils the capture: its end fails.
#include "capture.h"

#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "stream.h"

namespace standin {

class Graph {
 public:
    Graph(Stream* origin_stream, aclmdlRICaptureMode capture_mode)
        : origin(origin_stream), mode(capture_mode), owner(std::this_thread::get_id()) {}

    Stream* const origin;
    const aclmdlRICaptureMode mode;
    const std::thread::id owner;
    // What the caller knows the graph by, from the beginning of the capture on: a pointer to the
    // shared pointer that keeps it.
    std::shared_ptr<Graph>* handle = nullptr;
    bool spoiled = false;
    std::vector<Task> tasks;
    std::set<Stream*> streams;
    std::map<Stream*, CaptureClock> clocks;  // what each stream is known to lie behind
};

namespace {

// One lock for all of it: captures are rare, and outside of them only a pointer is read.
std::mutex capture_mutex;
std::set<Graph*> active;
thread_local aclmdlRICaptureMode thread_mode = ACL_MODEL_RI_CAPTURE_MODE_GLOBAL;

void Merge(CaptureClock& into, const CaptureClock& other) {
    for (const auto& [stream, count] : other) into[stream] = std::max(into[stream], count);
}

void Attach(const std::shared_ptr<Graph>& graph, Stream& stream) {
    graph->streams.insert(&stream);
    stream.graph = graph;
}

int Spoil(Graph& graph, int code, const char* call) {
    graph.spoiled = true;
    return Fail(code, "%s is not possible while a stream is being captured into a graph", call);
}

aclError End(Stream& stream, aclmdlRI* result) {
    std::lock_guard<std::mutex> lock(capture_mutex);
    const std::shared_ptr<Graph> graph = stream.graph;
    if (graph == nullptr)
        return Fail(ACL_ERROR_RT_STREAM_NOT_CAPTURED, "aclmdlRICaptureEnd: no capture here");
    if (graph->origin != &stream) {
        return Fail(ACL_ERROR_RT_STREAM_CAPTURE_UNMATCHED,
                    "aclmdlRICaptureEnd: the capture began on another stream");
    }
    bool joined = true;
    for (Stream* member : graph->streams) {
        const uint64_t launched = graph->clocks[member][member];
        joined = joined && graph->clocks[&stream][member] >= launched;
        member->graph = nullptr;
    }
    active.erase(graph.get());
    if (graph->spoiled || !joined) delete graph->handle;
    if (graph->spoiled) {
        return Fail(ACL_ERROR_RT_STREAM_CAPTURE_INVALIDATED,
                    "aclmdlRICaptureEnd: a call that waits was made during the capture");
    }
    if (!joined) {
        return Fail(ACL_ERROR_RT_STREAM_UNJOINED,
                    "aclmdlRICaptureEnd: a stream that joined the capture was not joined back");
    }
    *result = graph->handle;
    return ACL_SUCCESS;
}

}  // namespace

bool RecordIfCapturing(Stream& stream, const Task& task) {
    std::lock_guard<std::mutex> lock(capture_mutex);
    if (stream.graph == nullptr) return false;
    stream.graph->tasks.push_back(task);
    ++stream.graph->clocks[&stream][&stream];
    return true;
}

CapturedMark MarkIfCapturing(Stream& stream) {
    std::lock_guard<std::mutex> lock(capture_mutex);
    if (stream.graph == nullptr) return {};
    return {stream.graph, stream.graph->clocks[&stream]};
}

int JoinCapture(Stream& stream, const CapturedMark& mark) {
    std::lock_guard<std::mutex> lock(capture_mutex);
    if (active.count(mark.graph.get()) == 0 ||
        (stream.graph != nullptr && stream.graph != mark.graph)) {
        return Fail(ACL_ERROR_RT_CAPTURE_DEPENDENCY,
                    "aclrtStreamWaitEvent: the event belongs to another capture");
    }
    Attach(mark.graph, stream);
    Merge(mark.graph->clocks[&stream], mark.clock);
    return ACL_SUCCESS;
}

int RefuseOutsideDependency(Stream& stream, bool event_was_recorded) {
    std::lock_guard<std::mutex> lock(capture_mutex);
    if (stream.graph == nullptr || !event_was_recorded) return ACL_SUCCESS;
    return Fail(ACL_ERROR_RT_CAPTURE_DEPENDENCY,
                "aclrtStreamWaitEvent: a captured stream cannot wait for an event from outside of "
                "the capture");
}

int RefuseOnCapturingStream(const char* call, Stream& stream) {
    std::lock_guard<std::mutex> lock(capture_mutex);
    return stream.graph == nullptr ? ACL_SUCCESS
                                   : Spoil(*stream.graph, ACL_ERROR_RT_STREAM_CAPTURED, call);
}

int RefuseDuringCapture(const char* call) {
    std::lock_guard<std::mutex> lock(capture_mutex);
    if (thread_mode == ACL_MODEL_RI_CAPTURE_MODE_RELAXED) return ACL_SUCCESS;
    for (Graph* graph : active) {
        const bool own = graph->owner == std::this_thread::get_id();
        const bool everyone = graph->mode == ACL_MODEL_RI_CAPTURE_MODE_GLOBAL &&
                              thread_mode == ACL_MODEL_RI_CAPTURE_MODE_GLOBAL;
        if (everyone || (own && graph->mode != ACL_MODEL_RI_CAPTURE_MODE_RELAXED)) {
            return Spoil(*graph, ACL_ERROR_RT_CAPTURE_MODE_NOT_SUPPORT, call);
        }
    }
    return ACL_SUCCESS;
}

}  // namespace standin

using standin::Fail;
using standin::Graph;
using standin::Stream;

extern "C" {

aclError aclmdlRICaptureBegin(aclrtStream handle, aclmdlRICaptureMode mode) {
    Stream& stream = Stream::Of(handle);
    std::lock_guard<std::mutex> lock(standin::capture_mutex);
    if (stream.graph != nullptr) {
        return Fail(ACL_ERROR_RT_STREAM_CAPTURED,
                    "aclmdlRICaptureBegin: the stream is being captured already");
    }
    const auto graph = std::make_shared<Graph>(&stream, mode);
    graph->handle = new std::shared_ptr<Graph>(graph);
    standin::Attach(graph, stream);
    standin::active.insert(graph.get());
    return ACL_SUCCESS;
}

aclError aclmdlRICaptureGetInfo(aclrtStream handle, aclmdlRICaptureStatus* status,
                                aclmdlRI* model) {
    Stream& stream = Stream::Of(handle);
    std::lock_guard<std::mutex> lock(standin::capture_mutex);
    const Graph* graph = stream.graph.get();
    if (model != nullptr) *model = graph == nullptr ? nullptr : graph->handle;
    *status = graph == nullptr ? ACL_MODEL_RI_CAPTURE_STATUS_NONE
              : graph->spoiled ? ACL_MODEL_RI_CAPTURE_STATUS_INVALIDATED
                               : ACL_MODEL_RI_CAPTURE_STATUS_ACTIVE;
    return ACL_SUCCESS;
}

aclError aclmdlRICaptureEnd(aclrtStream stream, aclmdlRI* model) {
    return standin::End(Stream::Of(stream), model);
}

aclError aclmdlRICaptureThreadExchangeMode(aclmdlRICaptureMode* mode) {
    std::swap(*mode, standin::thread_mode);
    return ACL_SUCCESS;
}

aclError aclmdlRIExecuteAsync(aclmdlRI model, aclrtStream stream) {
    const std::shared_ptr<Graph> graph = *static_cast<std::shared_ptr<Graph>*>(model);
    return standin::Launch(stream, "aclmdlRIExecuteAsync", [graph]() -> int {
        for (const standin::Task& task : graph->tasks) {
            const int error = task();
            if (error != ACL_SUCCESS) return error;
        }
        return ACL_SUCCESS;
    });
}

aclError aclmdlRIDestroy(aclmdlRI model) {
    delete static_cast<std::shared_ptr<Graph>*>(model);
    return ACL_SUCCESS;
}

}  // extern "C"
