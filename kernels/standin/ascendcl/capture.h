// Graph capture as the other parts of the runtime see it. See capture.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "standin.h"

namespace standin {

class Graph;
class Stream;

// How much of each captured stream lies before a point: stream -> number of its tasks.
using CaptureClock = std::map<Stream*, uint64_t>;

// What an event holds that was recorded during a capture.
struct CapturedMark {
    std::shared_ptr<Graph> graph;
    CaptureClock clock;
};

// Records the task when the stream is being captured.
bool RecordIfCapturing(Stream& stream, const Task& task);
CapturedMark MarkIfCapturing(Stream& stream);
// The stream waits for a captured event: it becomes part of that capture.
int JoinCapture(Stream& stream, const CapturedMark& mark);
// A captured stream must not depend on work outside of its graph.
int RefuseOutsideDependency(Stream& stream, bool event_was_recorded);
// For calls that wait: on this stream, or on the device as a whole.
int RefuseOnCapturingStream(const char* call, Stream& stream);
int RefuseDuringCapture(const char* call);

}  // namespace standin
