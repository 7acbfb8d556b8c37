// TQue and TQueBind: rings of buffers whose steps synchronise two pipes.
#pragma once

#include "pipe.h"

namespace AscendC {

// As in asc-devkit's impl/basic_api/kernel_tquebind_impl.h. EnQue sets a flag from the producing
// pipe to the consuming one, and DeQue waits for it; FreeTensor and AllocTensor likewise in the
// other direction. Each flag takes an id of the TPipe while it is set. The handles of queued
// buffers are in a ring of `depth` places that nothing guards: a step too many is reported, and
// then goes wrong as on the device.
template <TPosition source, TPosition destination, int32_t depth>
class TQueBind {
 public:
    static_assert(depth >= 1, "tensors in place (depth 0) are not part of the subset");

    template <typename T>
    LocalTensor<T> AllocTensor(hostsim::Loc loc = hostsim::Loc::Here()) {
        hostsim::Core* core = hostsim::g_core;
        core->where = loc;
        if (!Usable()) return {};
        for (uint32_t tries = 0; tries < count_; ++tries) {
            Entry& entry = first_[cursor_];
            cursor_ = (cursor_ + 1) % count_;
            if (entry.state != Entry::kFree) continue;
            entry.state = Entry::kAllocated;
            if (entry.freed != Entry::kNone) Lower(kFreed, entry.freed, loc);
            if (++GetTPipePtr()->Alive(destination) > kAlive)
                core->Report("queue", "more than 8 tensors of one TPosition at a time");
            ++core->queues_open;
            core->queue_where = loc;
            return LocalTensor<T>(entry.at, entry.bytes);
        }
        core->Report("queue", "AllocTensor with no free buffer: the core hangs");
        core->SpinForever("AllocTensor at " + loc.Text() + ", where no buffer is free");
        return {};
    }
    template <typename T>
    bool EnQue(const LocalTensor<T>& tensor, hostsim::Loc loc = hostsim::Loc::Here()) {
        hostsim::Core* core = hostsim::g_core;
        core->where = loc;
        Entry* entry = Find(tensor.At());
        if (entry == nullptr || entry->state != Entry::kAllocated) {
            core->Report("queue", "EnQue of a buffer that was not allocated");
            return false;
        }
        if (queued_ >= depth) core->Report("queue", "EnQue beyond the depth of the queue");
        entry->state = Entry::kQueued;
        ring_[tail_] = entry;
        tail_ = (tail_ + 1) % depth;
        ++queued_;
        Raise(kEnqueued, entry->enqueued, loc);
        return true;
    }
    template <typename T>
    LocalTensor<T> DeQue(hostsim::Loc loc = hostsim::Loc::Here()) {
        hostsim::Core* core = hostsim::g_core;
        core->where = loc;
        if (!Usable()) return {};
        if (queued_ <= 0) {
            core->Report("queue", "DeQue of an empty queue: the handle is an old one");
            if (ring_[head_] == nullptr) return LocalTensor<T>(first_->at, first_->bytes);
        }
        Entry& entry = *ring_[head_];
        head_ = (head_ + 1) % depth;
        --queued_;
        if (entry.enqueued != Entry::kNone) Lower(kEnqueued, entry.enqueued, loc);
        if (entry.state == Entry::kQueued) entry.state = Entry::kTaken;
        return LocalTensor<T>(entry.at, entry.bytes);
    }
    template <typename T>
    void FreeTensor(LocalTensor<T>& tensor, hostsim::Loc loc = hostsim::Loc::Here()) {
        hostsim::Core* core = hostsim::g_core;
        core->where = loc;
        Entry* entry = Find(tensor.At());
        if (entry == nullptr || entry->state != Entry::kTaken)
            core->Report("queue", "FreeTensor of a buffer that was not dequeued");
        if (entry == nullptr) return;
        if (entry->state != Entry::kFree) {
            --core->queues_open;
            --GetTPipePtr()->Alive(destination);
        }
        Raise(kFreed, entry->freed, loc);
        entry->state = Entry::kFree;
        entry->freed_event = kFreed;
        entry->freed_at = loc;
    }

    void Bind(TPipe::Entry* first, uint32_t count, uint32_t era) {  // hostsim only
        first_ = first;
        count_ = count;
        era_ = era;
        cursor_ = 0;
    }

 private:
    using Entry = TPipe::Entry;
    static constexpr uint32_t kAlive = 8;
    static constexpr bool kLoads = source == TPosition::VECIN,
                          kStores = destination == TPosition::VECOUT;
    static_assert(kLoads || kStores, "a queue begins at VECIN or ends at VECOUT");
    static constexpr HardEvent kEnqueued = !kStores ? HardEvent::MTE2_V
                                           : kLoads ? HardEvent::MTE2_MTE3
                                                    : HardEvent::V_MTE3;
    static constexpr HardEvent kFreed = !kStores ? HardEvent::V_MTE2
                                        : kLoads ? HardEvent::MTE3_MTE2
                                                 : HardEvent::MTE3_V;

    void Raise(HardEvent event, int& id, hostsim::Loc loc) {
        id = GetTPipePtr()->TakeEventID(event, loc);
        hostsim::g_core->Raise(static_cast<int>(event), id, loc);
    }
    void Lower(HardEvent event, int& id, hostsim::Loc loc) {
        hostsim::Core* core = hostsim::g_core;
        core->Lower(static_cast<int>(event), id, loc, !core->world->Mutated(loc, "queue"));
        GetTPipePtr()->GiveEventID(event, id);
        id = Entry::kNone;
    }
    bool Usable() const {
        if (era_ == GetTPipePtr()->Era()) return true;
        hostsim::g_core->Report("pipe", "a queue without InitBuffer since the TPipe was reset");
        return false;
    }
    Entry* Find(uint32_t at) {
        for (uint32_t i = 0; Usable() && i < count_; ++i) {
            if (first_[i].at == at) return &first_[i];
        }
        return nullptr;
    }

    Entry* first_ = nullptr;
    uint32_t count_ = 0, era_ = 0, cursor_ = 0;
    Entry* ring_[depth] = {};
    int32_t head_ = 0, tail_ = 0, queued_ = 0;
};

// A VECIN queue feeds the vector unit from GM, a VECOUT queue drains it to GM.
template <TPosition position, int32_t depth>
class TQue : public TQueBind<position, position, depth> {};

}  // namespace AscendC
