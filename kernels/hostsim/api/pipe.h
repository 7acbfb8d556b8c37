// TPipe hands out UB; TBuf is plain memory; TQue and TQueBind are rings of buffers whose steps
// synchronise two pipes.
#pragma once

#include <deque>
#include <vector>

#include "sync.h"
#include "tensor.h"

namespace AscendC {

template <TPosition position>
class TBuf {
 public:
    template <typename T>
    LocalTensor<T> Get() const {
        return LocalTensor<T>(at, bytes);
    }

    uint32_t at = 0, bytes = 0;  // hostsim only
};

// EnQue sets an event from the producing pipe to the consuming pipe, DeQue waits for it; FreeTensor
// and AllocTensor likewise in the other direction (asc-devkit include/basic_api/kernel_tquebind.h).
template <TPosition source, TPosition destination, int32_t depth>
class TQueBind {
 public:
    template <typename T>
    LocalTensor<T> AllocTensor(hostsim::Loc loc = hostsim::Loc::Here()) {
        hostsim::Core* core = hostsim::g_core;
        core->where = loc;
        for (Slot& slot : slots_) {
            if (slot.state != kFree) continue;
            slot.state = kAllocated;
            if (!core->world->Mutated(loc, "queue")) core->Learn(kProducer, slot.clock);
            ++core->queues_open;
            core->queue_where = loc;
            return LocalTensor<T>(slot.at, bytes_);
        }
        core->Report("queue", "AllocTensor with no free buffer: the core would hang");
        return LocalTensor<T>(0, bytes_);
    }
    template <typename T>
    bool EnQue(const LocalTensor<T>& tensor, hostsim::Loc loc = hostsim::Loc::Here()) {
        Slot* slot = Of(tensor.At(), kAllocated, "EnQue of a buffer that was not allocated", loc);
        if (slot == nullptr) return false;
        slot->state = kQueued;
        slot->clock = hostsim::g_core->Snapshot(kProducer);
        order_.push_back(slot);
        return true;
    }
    template <typename T>
    LocalTensor<T> DeQue(hostsim::Loc loc = hostsim::Loc::Here()) {
        hostsim::Core* core = hostsim::g_core;
        core->where = loc;
        if (order_.empty()) {
            core->Report("queue", "DeQue of an empty queue: the core would hang");
            return LocalTensor<T>(0, bytes_);
        }
        Slot* slot = order_.front();
        order_.pop_front();
        slot->state = kTaken;
        if (!core->world->Mutated(loc, "queue")) core->Learn(kConsumer, slot->clock);
        return LocalTensor<T>(slot->at, bytes_);
    }
    template <typename T>
    void FreeTensor(LocalTensor<T>& tensor, hostsim::Loc loc = hostsim::Loc::Here()) {
        Slot* slot = Of(tensor.At(), kTaken, "FreeTensor of a buffer that was not dequeued", loc);
        if (slot == nullptr) return;
        slot->state = kFree;
        slot->clock = hostsim::g_core->Snapshot(kConsumer);
        --hostsim::g_core->queues_open;
    }

    void Bind(uint32_t at, uint8_t count, uint32_t bytes) {  // hostsim only
        bytes_ = bytes;
        slots_.clear();
        for (uint8_t i = 0; i < count; ++i) slots_.push_back({at + i * bytes, kFree, {}});
    }

 private:
    enum State { kFree, kAllocated, kQueued, kTaken };
    struct Slot {
        uint32_t at;
        State state;
        hostsim::Clock clock;
    };
    static constexpr pipe_t kProducer = source == TPosition::VECIN ? PIPE_MTE2 : PIPE_V;
    static constexpr pipe_t kConsumer = destination == TPosition::VECOUT ? PIPE_MTE3 : PIPE_V;

    Slot* Of(uint32_t at, State expected, const char* otherwise, hostsim::Loc loc) {
        hostsim::g_core->where = loc;
        for (Slot& slot : slots_) {
            if (slot.at == at && slot.state == expected) return &slot;
        }
        hostsim::g_core->Report("queue", otherwise);
        return nullptr;
    }

    uint32_t bytes_ = 0;
    std::vector<Slot> slots_;
    std::deque<Slot*> order_;
};

// A VECIN queue feeds the vector unit from GM, a VECOUT queue drains it to GM.
template <TPosition position, int32_t depth>
class TQue : public TQueBind<position, position, depth> {};

class TPipe {
 public:
    TPipe() {
        Reset();
        hostsim::g_core->pipe = this;
    }
    template <TPosition position>
    void InitBuffer(TBuf<position>& buffer, uint32_t bytes,
                    hostsim::Loc loc = hostsim::Loc::Here()) {
        buffer.bytes = Round(bytes);
        buffer.at = Take(buffer.bytes, loc);
    }
    template <TPosition source, TPosition destination, int32_t depth>
    void InitBuffer(TQueBind<source, destination, depth>& queue, uint8_t count, uint32_t bytes,
                    hostsim::Loc loc = hostsim::Loc::Here()) {
        queue.Bind(Take(count * Round(bytes), loc), count, Round(bytes));
    }
    // A free id. Queues of this simulator do not use ids.
    TEventID FetchEventID(HardEvent) { return 0; }
    // Frees all buffers. Nothing may be in flight: the caller drains first.
    void Reset() { top_ = 0; }

 private:
    static uint32_t Round(uint32_t bytes) { return (bytes + 31) / 32 * 32; }
    uint32_t Take(uint32_t bytes, hostsim::Loc loc) {
        hostsim::Core* core = hostsim::g_core;
        uint32_t at = top_;
        top_ += bytes;
        core->ub_top = std::max(core->ub_top, top_);
        if (top_ > hostsim::kUbUsable) {
            core->where = loc;
            core->Report("ub-capacity", "buffers of " + std::to_string(top_) + " bytes, " +
                                            std::to_string(hostsim::kUbUsable) + " are usable");
            top_ = 0;
            return 0;
        }
        return at;
    }
    uint32_t top_ = 0;
};

}  // namespace AscendC

// The pipe of the running kernel.
inline AscendC::TPipe* GetTPipePtr() { return static_cast<AscendC::TPipe*>(hostsim::g_core->pipe); }
