#include "memory.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace hostsim {

void GlobalMemory::Insert(std::unique_ptr<Allocation> allocation) {
    auto at = std::lower_bound(sorted_.begin(), sorted_.end(), allocation->base,
                               [](const auto& a, uint64_t base) { return a->base < base; });
    sorted_.insert(at, std::move(allocation));
}

uint64_t GlobalMemory::Alloc(int rank, uint64_t size, const std::string& name, uint64_t offset) {
    if (next_.size() <= static_cast<size_t>(rank)) next_.resize(rank + 1, 0);
    if (next_[rank] == 0) next_[rank] = (static_cast<uint64_t>(rank) + 1) << 40;
    auto a = std::make_unique<Allocation>();
    a->base = next_[rank] + offset;
    a->size = size;
    a->rank = rank;
    a->name = name;
    // Nobody reads what nobody wrote: zeros are for runs that do not look.
    a->owned.reset(static_cast<uint8_t*>(tracked_ ? std::malloc(size) : std::calloc(size, 1)));
    if (a->owned == nullptr) throw std::bad_alloc();
    if (tracked_) {
        std::memset(a->owned.get(), 0xAB, size);
        a->written.reset(new uint8_t[size]());
        a->uses.resize((size + offset % kBlock) / kBlock + 2);
    }
    a->host = a->owned.get();
    next_[rank] += (offset + size + 8191) / 4096 * 4096;  // a guard of a page or more
    uint64_t base = a->base;
    Insert(std::move(a));
    return base;
}

void GlobalMemory::AddForeign(uint64_t base, uint64_t size, int rank, const std::string& name,
                              void* host) {
    auto a = std::make_unique<Allocation>();
    a->base = base;
    a->size = size;
    a->rank = rank;
    a->name = name;
    a->host = static_cast<uint8_t*>(host);
    Insert(std::move(a));
}

void GlobalMemory::Free(uint64_t base) {
    last_ = nullptr;
    sorted_.erase(std::remove_if(sorted_.begin(), sorted_.end(),
                                 [&](const auto& a) { return a->base == base; }),
                  sorted_.end());
}

Allocation* GlobalMemory::Find(uint64_t address, uint64_t bytes) {
    if (last_ == nullptr || address < last_->base || address >= last_->base + last_->size) {
        auto at = std::upper_bound(sorted_.begin(), sorted_.end(), address,
                                   [](uint64_t value, const auto& a) { return value < a->base; });
        if (at == sorted_.begin()) return nullptr;
        last_ = (--at)->get();
    }
    bool inside = address >= last_->base && bytes <= last_->size &&
                  address - last_->base <= last_->size - bytes;
    return inside ? last_ : nullptr;
}

namespace {

// Calls block(offset) for every whole aligned 32-byte block of a range, part(offset, bytes) for the
// rest.
template <typename Block, typename Part>
void ForBlocks(uint64_t address, uint64_t bytes, Block block, Part part) {
    uint64_t at = 0;
    while (at < bytes) {
        uint64_t in_block = (address + at) % kBlock, left = std::min(kBlock - in_block, bytes - at);
        if (left == kBlock) {
            block(at);
        } else {
            part(at, left);
        }
        at += left;
    }
}

}  // namespace

void GlobalMemory::Land(uint64_t address, uint8_t* to, const uint8_t* from, uint64_t bytes) {
    ForBlocks(
        address, bytes,
        [&](uint64_t at) {
            std::memcpy(to + at + 8, from + at + 8, kBlock - 8);
            uint64_t first;
            std::memcpy(&first, from + at, 8);
            __atomic_store_n(reinterpret_cast<uint64_t*>(to + at), first, __ATOMIC_RELEASE);
        },
        [&](uint64_t at, uint64_t left) { std::memcpy(to + at, from + at, left); });
}

void GlobalMemory::Fetch(uint64_t address, uint8_t* to, const uint8_t* from, uint64_t bytes) {
    ForBlocks(
        address, bytes,
        [&](uint64_t at) {
            uint64_t first =
                __atomic_load_n(reinterpret_cast<const uint64_t*>(from + at), __ATOMIC_ACQUIRE);
            std::memcpy(to + at, &first, 8);
            std::memcpy(to + at + 8, from + at + 8, kBlock - 8);
        },
        [&](uint64_t at, uint64_t left) { std::memcpy(to + at, from + at, left); });
}

void GlobalMemory::HostWrite(uint64_t address, const void* from, uint64_t bytes,
                             bool mark_written) {
    Allocation* a = Find(address, bytes);
    if (a == nullptr) return;
    uint64_t at = address - a->base;
    std::memcpy(a->host + at, from, bytes);
    if (a->Tracked()) std::memset(a->written.get() + at, mark_written, bytes);
}

bool GlobalMemory::HostRead(uint64_t address, void* to, uint64_t bytes, uint8_t* written) {
    Allocation* a = Find(address, bytes);
    if (a == nullptr) return false;
    uint64_t at = address - a->base;
    std::memcpy(to, a->host + at, bytes);
    if (written != nullptr) {
        if (a->Tracked()) {
            std::memcpy(written, a->written.get() + at, bytes);
        } else {
            std::memset(written, 1, bytes);
        }
    }
    return true;
}

}  // namespace hostsim
