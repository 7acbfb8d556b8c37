// Whether the tensors of a call are of the shapes and types that were found legal before.
#pragma once

#include "interpreter.h"

namespace moe {

// What a tensor of a call must be; contiguous in any case.
struct Expected {
    static constexpr int64_t kDims = 4;
    int64_t given;  // 0: must be None
    int64_t word;   // of the call's structure that takes its address; -1: none does
    int64_t code, bits;
    int64_t dims, shape[kDims];

    bool met_by(const DlTensor& seen) const {
        if (seen.device != kCpu || seen.dims != dims || seen.code != code || seen.bits != bits ||
            seen.lanes != 1) {
            return false;
        }
        int64_t step = 1;
        bool empty = false, contiguous = true;
        for (int32_t dim = seen.dims - 1; dim >= 0; --dim) {
            if (seen.shape[dim] != shape[dim]) return false;
            contiguous = contiguous && (shape[dim] == 1 || seen.strides[dim] == step);
            empty = empty || shape[dim] == 0;
            step *= shape[dim];
        }
        return empty || contiguous;
    }
};

struct Expectation {
    int64_t none, tensor_type;  // addresses of None and of the class torch.Tensor
    int64_t count;
    Expected expected[1];  // `count` of them

    // Puts the addresses of the tensors into `words` if they are those expected.
    bool met_by(_object* tensors, const DlTable& torch, int64_t* words) const {
        for (int64_t index = 0; index < count; ++index) {
            const Expected& one = expected[index];
            _object* tensor = PyTuple_GetItem(tensors, index);
            const bool given = reinterpret_cast<int64_t>(tensor) != none;
            if (given != (one.given != 0)) return false;
            if (!given) continue;
            _object* type = PyObject_Type(tensor);
            Py_DecRef(type);  // its tensor keeps it
            if (reinterpret_cast<int64_t>(type) != tensor_type) return false;
            DlTensor seen;
            if (torch.look(tensor, &seen)) {
                PyErr_Clear();
                return false;
            }
            if (!one.met_by(seen)) return false;
            if (one.word >= 0) words[one.word] = reinterpret_cast<int64_t>(seen.data + seen.offset);
        }
        return true;
    }
};

}  // namespace moe
