// Reserved address space, into which physical memory is mapped piece by piece: what
// PYTORCH_NPU_ALLOC_CONF=expandable_segments:True is made of.
//
// Each reservation lies twice in the address space of the process, as all device memory does (see
// arena.h): the range the caller knows, which nobody may touch, and a twin of the same size in
// which a mapped piece is readable and writable and a gap is not. So what plays the device faults
// in a gap too.
#pragma once

#include <map>
#include <shared_mutex>

#include "acl/acl.h"

namespace standin {

constexpr size_t kPage = 4096;

// Memory of a device as aclrtMallocPhysical hands it out.
struct Physical {
    size_t offset;  // in the arena's file
    size_t bytes;
    int device;
    int mappings = 0;
    bool released = false;  // by its owner; it goes when the last mapping does
};

class Reservations {
 public:
    Reservations(int file, bool strict) : file_(file), strict_(strict) {}

    // Null when there is not so much address space.
    char* Reserve(size_t bytes);
    aclError Release(char* address);
    aclError MapPiece(char* address, Physical* memory);
    // On success `memory` is what was mapped there.
    aclError UnmapPiece(char* address, Physical** memory);

    bool Contains(const char* p) const;
    bool TryContains(const char* p) const;  // false when somebody changes them now
    // Null when there is a gap in [p, + bytes).
    void* Translate(const char* p, size_t bytes) const;

 private:
    struct Range {
        size_t bytes;
        char* twin;
        std::map<size_t, Physical*> pieces;  // by offset
    };
    using Ranges = std::map<char*, Range>;

    Ranges::const_iterator Find(const char* p) const;
    void Protect(char* address, size_t bytes) const;

    const int file_;
    const bool strict_;
    mutable std::shared_mutex mutex_;
    Ranges ranges_;
};

}  // namespace standin
