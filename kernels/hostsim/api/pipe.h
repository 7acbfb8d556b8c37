// TPipe hands out UB and event ids; TBuf is plain memory. Queues are in queue.h.
#pragma once

#include <array>

#include "sync.h"
#include "tensor.h"

namespace AscendC {

template <TPosition source, TPosition destination, int32_t depth>
class TQueBind;
template <TPosition position>
class TBuf;

// As in asc-devkit's impl/basic_api/kernel_tpipe_impl.h: one table of at most 64 buffers, and for
// every HardEvent a pool of ids. A queue step takes an id for as long as its flag is on its way.
class TPipe {
 public:
    // One buffer of the table; a queue owns consecutive ones.
    struct Entry {
        enum State { kFree, kAllocated, kQueued, kTaken };
        static constexpr int kNone = -1;
        uint32_t at = 0, bytes = 0;
        State state = kFree;
        int enqueued = kNone, freed = kNone;  // ids of the flags that are set
        HardEvent freed_event = HardEvent::MAX;
        hostsim::Loc freed_at{"", 0};
    };

    explicit TPipe(hostsim::Loc loc = hostsim::Loc::Here()) {
        hostsim::g_core->where = loc;
        if (hostsim::g_core->pipe != nullptr)
            hostsim::g_core->Report("pipe", "a second TPipe while there is one");
        hostsim::g_core->pipe = this;
    }
    ~TPipe() {
        Reset();
        hostsim::g_core->pipe = nullptr;
    }
    TPipe(const TPipe&) = delete;

    template <TPosition position>
    void InitBuffer(TBuf<position>& buffer, uint32_t bytes,
                    hostsim::Loc loc = hostsim::Loc::Here()) {
        buffer.Bind(Add(1, bytes, loc), era_);
    }
    template <TPosition source, TPosition destination, int32_t depth>
    void InitBuffer(TQueBind<source, destination, depth>& queue, uint8_t count, uint32_t bytes,
                    hostsim::Loc loc = hostsim::Loc::Here()) {
        queue.Bind(Add(count, bytes, loc), count, era_);
    }

    // A free id, which stays free.
    TEventID FetchEventID(HardEvent event, hostsim::Loc loc = hostsim::Loc::Here()) {
        uint32_t taken = taken_[static_cast<int>(event)];
        int id = 0;
        while (id < hostsim::kEventIds && (taken >> id & 1) != 0) ++id;
        if (id >= hostsim::kFreeEventIds) {
            hostsim::g_core->where = loc;
            hostsim::g_core->Report(
                "event", std::to_string(id) + " ids of this event are in flight: none is free");
        }
        return static_cast<TEventID>(id);
    }

    // Waits for the flags of buffers that are free, and forgets all buffers and ids. A flag of a
    // buffer that is not free stays set. What is in flight stays so: the caller drains first.
    void Reset() {
        for (uint32_t i = 0; i < entries_; ++i) {
            Entry& entry = table_[i];
            if (entry.freed != Entry::kNone && entry.state == Entry::kFree)
                hostsim::g_core->Lower(static_cast<int>(entry.freed_event), entry.freed,
                                       entry.freed_at, true);
            entry = Entry{};
        }
        entries_ = top_ = 0;
        taken_.fill(0);
        alive_.fill(0);
        ++era_;
    }

    // --- hostsim only ---
    int TakeEventID(HardEvent event, hostsim::Loc loc) {
        int id = FetchEventID(event, loc);
        taken_[static_cast<int>(event)] |= 1u << id;
        return id;
    }
    void GiveEventID(HardEvent event, int id) { taken_[static_cast<int>(event)] &= ~(1u << id); }
    uint32_t Era() const { return era_; }  // changes with every Reset; never 0
    // Tensors of the queues of a position that are allocated and not yet free.
    uint32_t& Alive(TPosition position) { return alive_[static_cast<int>(position)]; }

 private:
    static constexpr uint32_t kEntries = 64;

    Entry* Add(uint32_t count, uint32_t bytes, hostsim::Loc loc) {
        hostsim::Core* core = hostsim::g_core;
        core->where = loc;
        if (count == 0 || bytes == 0) core->Report("pipe", "InitBuffer of no bytes");
        if (entries_ + count > kEntries) {
            core->Report("pipe", "more than 64 buffers of one TPipe");
            entries_ = 0;
        }
        bytes = (bytes + 31) / 32 * 32;
        uint32_t at = top_;
        top_ += count * bytes;
        core->ub_top = std::max(core->ub_top, top_);
        if (top_ > hostsim::kUbUsable) {
            core->Report("ub-capacity", "buffers of " + std::to_string(top_) + " bytes, " +
                                            std::to_string(hostsim::kUbUsable) + " are usable");
            at = top_ = 0;
        }
        Entry* first = &table_[entries_];
        for (uint32_t i = 0; i < count; ++i) {
            table_[entries_] = Entry{};
            table_[entries_].at = at + i * bytes;
            table_[entries_++].bytes = bytes;
        }
        return first;
    }

    std::array<Entry, kEntries> table_;
    uint32_t entries_ = 0, top_ = 0, era_ = 1;
    std::array<uint32_t, static_cast<int>(HardEvent::MAX)> taken_{};
    std::array<uint32_t, static_cast<int>(TPosition::VECCALC) + 1> alive_{};
};

}  // namespace AscendC

// The pipe of the running kernel.
inline AscendC::TPipe* GetTPipePtr() {
    auto* pipe = static_cast<AscendC::TPipe*>(hostsim::g_core->pipe);
    if (pipe == nullptr) hostsim::g_core->SpinForever("GetTPipePtr without a TPipe");
    return pipe;
}

namespace AscendC {

template <TPosition position>
class TBuf {
 public:
    template <typename T>
    LocalTensor<T> Get(hostsim::Loc loc = hostsim::Loc::Here()) const {
        if (era_ != GetTPipePtr()->Era()) {
            hostsim::g_core->where = loc;
            hostsim::g_core->Report("pipe", "a TBuf without InitBuffer since the TPipe was reset");
        }
        return LocalTensor<T>(at_, bytes_);
    }

    void Bind(const TPipe::Entry* entry, uint32_t era) {  // hostsim only
        at_ = entry->at;
        bytes_ = entry->bytes;
        era_ = era;
    }

 private:
    uint32_t at_ = 0, bytes_ = 0, era_ = 0;
};

}  // namespace AscendC
