// performance_info: for how many microseconds this rank has stood waiting for each rank of the
// whole group.
//
// A core waits for one rank after the other, and most of them have come long before they are asked
// for. So each poll looks at all ranks that this core may still wait for, and notes when it first
// sees one: who came while another was waited for is charged until then, not until it is asked for.
// Only standing counts, not the work between two waits.
//
// The tensor has an entry for each rank of the whole group, also where some are gone.
//
// It is a wait of its own in front of those of the kernels, which then find what they wait for.
// Without the tensor there is none: no counter is read and nothing is looked at twice.
#pragma once

#include "window.h"

namespace ascend_moe {

__aicore__ inline bool Measured(const Parameters& p) { return p.waits != Waits::kUntold; }

// Of one core, in one step of a launch.
class Waited {
 public:
    __aicore__ inline Waited(Window& window, bool measured)
        : window_(window), measured_(measured) {}

    // Entries [range.begin, range.end) of a table in the own control area; each is `blocks` tagged
    // blocks, which carry this epoch or a later one when it has come.
    __aicore__ inline void Watch(TPipe* pipe, FlagName what, uint64_t table, uint32_t blocks,
                                 Share range, uint32_t epoch) {
        measured_ = measured_ && range.begin < range.end;
        if (!measured_) return;
        what_ = what;
        table_ = table;
        blocks_ = blocks;
        range_ = range;
        epoch_ = epoch;
        at_once_ = blocks < kLookBlocks ? kLookBlocks / blocks : 1;
        const uint32_t entries = range.end - range.begin;
        pipe->InitBuffer(charged_, WaitsBytes(window_.whole));
        pipe->InitBuffer(seen_, AlignUp(4 * entries, kBlockBytes));
        pipe->InitBuffer(look_, at_once_ * blocks * kBlockBytes);
        for (uint32_t i = 0; i < entries; ++i) seen_.Get<int32_t>().SetValue(i, 0);
        for (uint32_t i = 0; i < 2 * window_.whole; ++i) charged_.Get<int32_t>().SetValue(i, 0);
    }

    // Until this entry has come, or this core gives up. Charges the peer that it stood for.
    __aicore__ inline void Until(uint32_t entry, uint32_t peer) {
        if (!measured_) return;
        LocalTensor<int32_t> seen = seen_.Get<int32_t>(), charged = charged_.Get<int32_t>();
        const uint32_t at = entry - range_.begin;
        const int64_t begin = AscendC::GetSystemCycle() - stood_;
        while (seen.GetValue(at) == 0 && !window_.failed) {
            Look(begin);
            if (seen.GetValue(at) == 0) window_.Pause(what_, peer, epoch_);
            stood_ = AscendC::GetSystemCycle() - begin;
        }
        const int32_t waited =
            seen.GetValue(at) == 0 ? Microseconds(stood_) : seen.GetValue(at) - 1;
        const uint32_t word = 2 * window_.Old(peer);
        if (waited > charged.GetValue(word)) charged.SetValue(word, waited);
    }
    __aicore__ inline void UntilAll() {
        if (!measured_) return;
        for (uint32_t peer = range_.begin; peer < range_.end; ++peer) Until(peer, peer);
    }

    // To memory with an int64 for each rank, of which the low word takes part, as with the vendor.
    __aicore__ inline void MergeInto(uint64_t waits, Waits how) {
        if (!measured_) return;
        MOE_SYNC(S_MTE3);
        StoreMerged(At<int32_t>(waits), charged_.Get<int32_t>(), 2 * window_.whole, how);
        MOE_SYNC(MTE3_S);  // in one server all callers drain before the buffer is another's
    }

    __aicore__ inline static void StoreMerged(const AscendC::GlobalTensor<int32_t>& to,
                                              const LocalTensor<int32_t>& waits, uint32_t words,
                                              Waits how) {
        if (how == Waits::kAdded) {
            StoreAdding(to, waits, words);
        } else {
            StoreLarger(to, waits, words);
        }
    }

 private:
    static constexpr uint32_t kLookBlocks = 64;  // that are loaded at once

    __aicore__ inline static int32_t Microseconds(int64_t ticks) {
        return static_cast<int32_t>(ticks / kTicksPerMicrosecond);
    }

    __aicore__ inline void Look(int64_t begin) {
        const uint32_t entries = range_.end - range_.begin;
        for (uint32_t first = 0; first < entries; first += at_once_) {
            uint32_t end = first + at_once_ < entries ? first + at_once_ : entries;
            LookAt(first, end, begin);
        }
    }

    // `seen`: one more than the microseconds, or 0.
    __aicore__ inline void LookAt(uint32_t first, uint32_t end, int64_t begin) {
        LocalTensor<int32_t> seen = seen_.Get<int32_t>();
        while (first < end && seen.GetValue(first) != 0) ++first;
        if (first == end) return;
        LocalTensor<uint32_t> look = look_.Get<uint32_t>();
        const uint32_t words = blocks_ * kBlockWords;
        {
            PollScope poll;
            Load(look,
                 At<uint32_t>(window_.Control(
                     window_.rank, table_ + (range_.begin + first) * blocks_ * kBlockBytes)),
                 (end - first) * words);
        }
        MOE_SYNC(MTE2_S);
        const int32_t now = Microseconds(AscendC::GetSystemCycle() - begin) + 1;
        for (uint32_t i = first; i < end; ++i) {
            if (seen.GetValue(i) == 0 && HasCome(look[(i - first) * words])) seen.SetValue(i, now);
        }
        MOE_SYNC(S_MTE2);
    }
    __aicore__ inline bool HasCome(const LocalTensor<uint32_t>& entry) const {
        for (uint32_t block = 0; block < blocks_; ++block) {
            if (!window_.Tagged(entry[block * kBlockWords], epoch_)) return false;
        }
        return true;
    }

    Window& window_;
    bool measured_;
    FlagName what_{};
    uint64_t table_ = 0;
    uint32_t blocks_ = 0, epoch_ = 0, at_once_ = 0;
    Share range_{0, 0};
    int64_t stood_ = 0;  // ticks
    Buffer charged_, seen_, look_;
};

// Cores of a combine wait for the same ranks, and what counts is how long any of them stood. So
// they bring their waits together in the workspace, and one core tells the sum of it.
class WaitsOfCores {
 public:
    __aicore__ inline WaitsOfCores(const Window& window, const Parameters& p, uint64_t workspace)
        : window_(window), how_(p.waits), shared_(workspace + WaitsOffset(p)) {}

    // By core 0, a SyncAll before any core merges.
    __aicore__ inline void Clear(TPipe* pipe) {
        Buffer buffer;
        pipe->InitBuffer(buffer, kPitchBytes);
        LocalTensor<int32_t> zero = buffer.Get<int32_t>();
        for (uint32_t i = 0; i < kPitchBytes / 4; ++i) zero.SetValue(i, 0);
        MOE_SYNC(S_MTE3);
        const uint32_t bytes = WaitsBytes(window_.whole);
        for (uint32_t at = 0; at < bytes; at += kPitchBytes) {
            uint32_t length = bytes - at < kPitchBytes ? bytes - at : kPitchBytes;
            Store(At<int32_t>(shared_ + at), zero, length / 4);
        }
    }

    __aicore__ inline uint64_t Address() const { return shared_; }

    // By core 0, a SyncAll behind the last merge.
    __aicore__ inline void Tell(TPipe* pipe, uint64_t performance_info) {
        Buffer buffer;
        pipe->InitBuffer(buffer, WaitsBytes(window_.whole));
        LocalTensor<int32_t> waits = buffer.Get<int32_t>();
        Load(waits, At<int32_t>(shared_), 2 * window_.whole);
        MOE_SYNC(MTE2_MTE3);
        Waited::StoreMerged(At<int32_t>(performance_info), waits, 2 * window_.whole, how_);
    }

 private:
    const Window& window_;
    const Waits how_;
    uint64_t shared_;
};

}  // namespace ascend_moe
