// Outputs in memory that was used before: ../repeated/warm.py says why, and does the same for calls
// that Python makes step by step.
//
// A shelf keeps a few sets of outputs of one kind. Each output is a tensor of its own whose storage
// tells its set when the last tensor, view or alias of it is gone; a set that only its shelf holds
// is handed out again. Shelves that were not used for longest give their sets back; a set that
// somebody still sees goes when he lets go of it.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>
#include <vector>

#include "interpreter.h"

namespace moe {

constexpr int64_t kOutputs = 7;  // at most
constexpr int64_t kHugePagesFrom = 4 << 20;

struct OutputShape {
    int64_t code, bits, dims, shape[2], stride[2];
    int64_t elements() const { return shape[0] * (dims > 1 ? shape[1] : 1); }
    int64_t bytes() const { return (elements() * bits / 8 + 63) / 64 * 64; }
};

// The outputs of one call, in one piece of memory.
struct Outputs {
    std::atomic<int64_t> holders{1};  // the shelf, and each output that somebody can see
    int64_t rows = 0;                 // rows that are not zero
    int64_t count = 0, bytes = 0;
    char* memory = nullptr;
    OutputShape shape[kOutputs];
    DlManaged managed[kOutputs];

    Outputs(const OutputShape* shapes, int64_t number) : count(number) {
        for (int64_t i = 0; i < count; ++i) bytes += shapes[i].bytes();
        bytes = std::max<int64_t>(bytes, 64);
        const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void* found = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
        if (found == MAP_FAILED) throw std::bad_alloc();
        memory = static_cast<char*>(found);
        if (bytes >= kHugePagesFrom) madvise(found, bytes, MADV_HUGEPAGE);
        std::copy(shapes, shapes + count, shape);
        char* at = memory;
        for (int64_t i = 0; i < count; at += shape[i++].bytes()) {
            DlTensor& tensor = managed[i].tensor;
            tensor = {at,
                      kCpu,
                      0,
                      static_cast<int32_t>(shape[i].dims),
                      static_cast<uint8_t>(shape[i].code),
                      static_cast<uint8_t>(shape[i].bits),
                      1,
                      shape[i].shape,
                      shape[i].stride,
                      0};
            managed[i].major = kDlpackMajor;
            managed[i].minor = 0;
            managed[i].owner = this;
            managed[i].dropped = [](DlManaged* self) {
                static_cast<Outputs*>(self->owner)->let_go();
            };
            managed[i].flags = 0;
        }
    }
    ~Outputs() { munmap(memory, bytes); }
    Outputs(const Outputs&) = delete;
    Outputs& operator=(const Outputs&) = delete;

    // 0 when there is nothing to write.
    int64_t address(int64_t index) const {
        const bool empty = !shape[index].elements();
        return empty ? 0 : reinterpret_cast<int64_t>(managed[index].tensor.data);
    }

    bool idle() const { return holders.load(std::memory_order_acquire) == 1; }

    void let_go() {
        if (holders.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
    }

    // A new tuple of tensors; null, with a Python error set, when torch does not make them.
    _object* tensors(const DlTable& torch) {
        _object* tuple = PyTuple_New(count);
        for (int64_t i = 0; tuple && i < count; ++i) {
            _object* tensor = nullptr;
            holders.fetch_add(1, std::memory_order_relaxed);
            if (torch.import_managed(&managed[i], &tensor)) {
                let_go();
                Py_DecRef(tuple);
                return nullptr;
            }
            PyTuple_SetItem(tuple, i, tensor);
        }
        return tuple;
    }
};

struct Shelf {
    static constexpr size_t kSets = 4, kShelves = 16;  // with sets on them

    Shelf(const OutputShape* shapes, int64_t number) : count(number) {
        std::copy(shapes, shapes + number, shape);
        all().push_back(this);
    }

    // A set that nobody sees.
    Outputs* take() {
        static int64_t now = 0;
        last_used = ++now;
        for (Outputs* set : sets) {
            if (set->idle()) return set;
        }
        auto* made = new Outputs(shape, count);
        if (sets.size() < kSets) {
            sets.push_back(made);
            give_back_what_is_old();
        } else {
            unkept = made;  // goes with its tensors
        }
        return made;
    }

    // After the tensors of the set that was taken are made.
    void taken() {
        if (unkept) unkept->let_go();
        unkept = nullptr;
    }

    void clear() {
        for (Outputs* set : sets) set->let_go();
        sets.clear();
    }

    static std::vector<Shelf*>& all() {
        static std::vector<Shelf*> shelves;
        return shelves;
    }

    static void give_back_what_is_old() {
        size_t full = 0;
        Shelf* oldest = nullptr;
        for (Shelf* shelf : all()) {
            if (shelf->sets.empty()) continue;
            ++full;
            if (!oldest || shelf->last_used < oldest->last_used) oldest = shelf;
        }
        if (full > kShelves) oldest->clear();
    }

    int64_t count, last_used = 0;
    OutputShape shape[kOutputs];
    std::vector<Outputs*> sets;
    Outputs* unkept = nullptr;
};

}  // namespace moe
