#include "reservations.h"

#include <sys/mman.h>

#include <mutex>

#include "standin.h"

namespace standin {
namespace {

char* ReserveAddresses(size_t bytes) {
    void* address =
        mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return address == MAP_FAILED ? nullptr : static_cast<char*>(address);
}

}  // namespace

char* Reservations::Reserve(size_t bytes) {
    char* address = ReserveAddresses(bytes);
    char* twin = address == nullptr ? nullptr : ReserveAddresses(bytes);
    if (twin == nullptr) {
        if (address != nullptr) munmap(address, bytes);
        return nullptr;
    }
    std::unique_lock<std::shared_mutex> lock(mutex_);
    ranges_[address] = {bytes, twin, {}};
    return address;
}

aclError Reservations::Release(char* address) {
    std::unique_lock<std::shared_mutex> lock(mutex_);
    const auto range = ranges_.find(address);
    if (range == ranges_.end()) {
        return Fail(ACL_ERROR_RT_PARAM_INVALID,
                    "aclrtReleaseMemAddress: %p is not the beginning of a reserved range", address);
    }
    if (!range->second.pieces.empty()) {
        return Fail(ACL_ERROR_RT_PARAM_INVALID,
                    "aclrtReleaseMemAddress: %zu pieces of %p are still mapped",
                    range->second.pieces.size(), address);
    }
    munmap(range->first, range->second.bytes);
    munmap(range->second.twin, range->second.bytes);
    ranges_.erase(range);
    return ACL_SUCCESS;
}

aclError Reservations::MapPiece(char* address, Physical* memory) {
    std::unique_lock<std::shared_mutex> lock(mutex_);
    const auto found = Find(address);
    const size_t bytes = memory->bytes;
    if (found == ranges_.end() || address + bytes > found->first + found->second.bytes) {
        return Fail(ACL_ERROR_RT_PARAM_INVALID,
                    "aclrtMapMem: [%p, + %zu) is not inside a reserved range", address, bytes);
    }
    Range& range = ranges_.at(found->first);
    const size_t offset = address - found->first;
    const auto next = range.pieces.upper_bound(offset);
    const auto before = next == range.pieces.begin() ? range.pieces.end() : std::prev(next);
    const bool behind = next != range.pieces.end() && next->first < offset + bytes;
    if (behind ||
        (before != range.pieces.end() && before->first + before->second->bytes > offset)) {
        return Fail(ACL_ERROR_RT_PARAM_INVALID,
                    "aclrtMapMem: a part of [%p, + %zu) is mapped already", address, bytes);
    }
    if (!range.pieces.empty() && range.pieces.begin()->second->device != memory->device) {
        return Fail(ACL_ERROR_RT_PARAM_INVALID,
                    "aclrtMapMem: %p already has memory of device %d, this is of device %d",
                    found->first, range.pieces.begin()->second->device, memory->device);
    }
    const auto map = [&](char* at) {
        return mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
                    file_, static_cast<off_t>(memory->offset)) != MAP_FAILED;
    };
    if (!map(range.twin + offset) || (!strict_ && !map(address))) {
        return Fail(ACL_ERROR_RT_MEMORY_ALLOCATION, "aclrtMapMem: the system maps no more");
    }
    range.pieces[offset] = memory;
    ++memory->mappings;
    return ACL_SUCCESS;
}

aclError Reservations::UnmapPiece(char* address, Physical** memory) {
    std::unique_lock<std::shared_mutex> lock(mutex_);
    const auto found = Find(address);
    if (found == ranges_.end() || found->second.pieces.count(address - found->first) == 0) {
        return Fail(ACL_ERROR_RT_PARAM_INVALID, "aclrtUnmapMem: nothing is mapped at %p", address);
    }
    Range& range = ranges_.at(found->first);
    const auto piece = range.pieces.find(address - found->first);
    *memory = piece->second;
    --piece->second->mappings;
    Protect(range.twin + piece->first, piece->second->bytes);
    if (!strict_) Protect(address, piece->second->bytes);
    range.pieces.erase(piece);
    return ACL_SUCCESS;
}

void Reservations::Protect(char* address, size_t bytes) const {
    mmap(address, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

bool Reservations::Contains(const char* p) const {
    std::shared_lock<std::shared_mutex> lock(mutex_);
    return Find(p) != ranges_.end();
}

bool Reservations::TryContains(const char* p) const {
    std::shared_lock<std::shared_mutex> lock(mutex_, std::try_to_lock);
    return lock.owns_lock() && Find(p) != ranges_.end();
}

void* Reservations::Translate(const char* p, size_t bytes) const {
    std::shared_lock<std::shared_mutex> lock(mutex_);
    const auto range = Find(p);
    if (range == ranges_.end()) return nullptr;
    const size_t offset = p - range->first;
    size_t reached = offset;  // everything in [offset, reached) is mapped
    auto piece = range->second.pieces.upper_bound(offset);
    if (piece == range->second.pieces.begin()) return nullptr;
    for (--piece; piece != range->second.pieces.end() && piece->first <= reached; ++piece) {
        reached = piece->first + piece->second->bytes;
        if (reached >= offset + bytes) return range->second.twin + offset;
        if (reached <= offset) return nullptr;
    }
    return nullptr;
}

Reservations::Ranges::const_iterator Reservations::Find(const char* p) const {
    auto range = ranges_.upper_bound(const_cast<char*>(p));
    if (range == ranges_.begin()) return ranges_.end();
    --range;
    return p < range->first + range->second.bytes ? range : ranges_.end();
}

}  // namespace standin
