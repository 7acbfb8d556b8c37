// Streams: queues of tasks, each worked off by its own thread. See stream.cpp.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>

#include "standin.h"

namespace standin {

class Graph;

class Stream {
 public:
    Stream(int device, int id) : device_(device), id_(id) {}

    // A null handle means the default stream of the thread's device.
    static Stream& Of(aclrtStream handle);

    // `always` tasks (events) run even when the stream has stopped after an error.
    void Push(const char* name, Task task, bool always = false);
    // Waits until the queue is empty; returns the stream's error. timeout_ms < 0: for ever.
    int Synchronize(int timeout_ms);
    bool Idle();
    // Marks the stream as failed because of an error elsewhere (an event of a failed stream).
    void Poison(int code, const std::string& message);
    int Error(std::string* message);
    void Refuse(const std::string& text);
    void TellAtSynchronisation(int code, const std::string& text);
    std::string TakeRefusal();

    int device() const { return device_; }
    int id() const { return id_; }

    // The graph that is recording this stream, or null. Guarded by the capture lock (capture.cpp).
    std::shared_ptr<Graph> graph;
    // Core limits set by aclrtSetStreamResLimit, by resource type; 0 means the whole chip.
    uint32_t core_limit[2] = {0, 0};

 private:
    struct Item {
        const char* name;
        Task run;
        bool always;
    };

    void Work();

    const int device_;
    const int id_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Item> queue_;
    bool busy_ = false;
    bool started_ = false;
    int error_ = ACL_SUCCESS;
    std::string message_;
    std::string refusal_;  // of a call that was not done, until somebody is told
    // Of a task that has ended well, until somebody synchronises.
    int told_ = ACL_SUCCESS;
    std::string told_text_;
};

}  // namespace standin
