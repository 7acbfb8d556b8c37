// Walking over strided tensors in device memory.
#pragma once

#include <string>

#include "../nnopbase/containers.h"
#include "element.h"

namespace standin {

// A tensor as device-side code sees it: translated once in phase one, so that phase two holds no
// device pointers.
class Strided {
 public:
    // Check `error` before use: it says when the tensor does not lie in device memory.
    Strided(const char* call, const aclTensor* tensor);

    int64_t Elements() const;
    // Calls visit(pointer to element) in row-major order of the shape.
    template <typename T, typename Visit>
    void ForEach(Visit visit) const {
        Walk(0, static_cast<T*>(first), visit);
    }
    // The same tensor seen with `target` shape (dimensions of size 1 are repeated, missing leading
    // ones added). False when the shapes do not fit.
    bool ExpandTo(const std::vector<int64_t>& target);

    int error = 0;
    aclDataType type;
    std::vector<int64_t> shape;
    std::vector<int64_t> strides;
    void* first = nullptr;

 private:
    template <typename T, typename Visit>
    void Walk(size_t dim, T* at, Visit& visit) const {
        if (dim == shape.size()) {
            visit(at);
            return;
        }
        for (int64_t i = 0; i < shape[dim]; ++i) Walk(dim + 1, at + i * strides[dim], visit);
    }
};

std::string ShapeText(const std::vector<int64_t>& shape);

}  // namespace standin
