// LocalTensor (unified buffer) and GlobalTensor. Copying one copies the handle.
#pragma once

#include "../sim/core.h"

namespace AscendC {

template <typename T>
class LocalTensor {
 public:
    LocalTensor() = default;
    // hostsim only: `at` and `bytes` inside the UB of the running core.
    LocalTensor(uint32_t at, uint32_t bytes) : at_(at), bytes_(bytes) {}

    LocalTensor operator[](uint32_t offset) const {
        uint32_t skip = offset * sizeof(T);
        return LocalTensor(at_ + skip, skip <= bytes_ ? bytes_ - skip : 0);
    }
    template <typename U>
    LocalTensor<U> ReinterpretCast() const {
        return LocalTensor<U>(at_, bytes_);
    }
    uint32_t GetSize() const { return bytes_ / sizeof(T); }

    T GetValue(uint32_t index, hostsim::Loc loc = hostsim::Loc::Here()) const {
        hostsim::Core* core = hostsim::g_core;
        core->Begin(PIPE_S, loc);
        T value{};
        if (!Holds(index * sizeof(T), sizeof(T))) return value;
        core->Read(at_ + index * sizeof(T), sizeof(T));
        std::memcpy(&value, core->ub + at_ + index * sizeof(T), sizeof(T));
        return value;
    }
    void SetValue(uint32_t index, T value, hostsim::Loc loc = hostsim::Loc::Here()) const {
        hostsim::Core* core = hostsim::g_core;
        core->Begin(PIPE_S, loc);
        if (!Holds(index * sizeof(T), sizeof(T))) return;
        core->Write(at_ + index * sizeof(T), sizeof(T));
        std::memcpy(core->ub + at_ + index * sizeof(T), &value, sizeof(T));
        core->MarkWritten(at_ + index * sizeof(T), sizeof(T), true);
    }

    // --- hostsim only ---
    uint32_t At() const { return at_; }
    T* Host() const { return reinterpret_cast<T*>(hostsim::g_core->ub + at_); }
    bool Holds(uint64_t from, uint64_t bytes) const {
        if (from + bytes <= bytes_) return true;
        hostsim::g_core->Report("ub-bounds", "operand of " + std::to_string(from + bytes) +
                                                 " bytes in a buffer of " + std::to_string(bytes_));
        return false;
    }

 private:
    uint32_t at_ = 0, bytes_ = 0;
};

template <typename T>
class GlobalTensor {
 public:
    void SetGlobalBuffer(__gm__ T* address) { SetGlobalBuffer(address, 0); }
    void SetGlobalBuffer(__gm__ T* address, uint64_t) {
        address_ = reinterpret_cast<uint64_t>(address);
    }
    GlobalTensor operator[](uint64_t offset) const {
        GlobalTensor other;
        other.address_ = address_ + offset * sizeof(T);
        return other;
    }
    // Through the data cache: see DataCacheCleanAndInvalid.
    T GetValue(uint64_t index, hostsim::Loc loc = hostsim::Loc::Here()) const {
        T value{};
        hostsim::g_core->ScalarRead(address_ + index * sizeof(T), &value, sizeof(T), loc);
        return value;
    }
    void SetValue(uint64_t index, T value, hostsim::Loc loc = hostsim::Loc::Here()) const {
        hostsim::g_core->ScalarWrite(address_ + index * sizeof(T), &value, sizeof(T), loc);
    }

    uint64_t Address() const { return address_; }  // hostsim only

 private:
    uint64_t address_ = 0;
};

}  // namespace AscendC
