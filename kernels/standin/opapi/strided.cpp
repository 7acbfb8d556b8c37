// See strided.h.
#include "strided.h"

namespace standin {

Strided::Strided(const char* call, const aclTensor* tensor) {
    if (tensor == nullptr) {
        error = Fail(kAclnnNullPointer, "%s: a tensor is null", call);
        return;
    }
    type = tensor->type;
    shape = tensor->shape;
    strides = tensor->strides;
    if (Elements() == 0) return;
    int64_t span = 1;  // elements from the first to behind the last
    for (size_t d = 0; d < shape.size(); ++d) span += (shape[d] - 1) * strides[d];
    const size_t width = aclDataTypeSize(type);
    const char* start = static_cast<const char*>(tensor->storage) + tensor->offset * width;
    first = HostAddress(start, span * width);
    if (first == nullptr) {
        error = Fail(kAclnnBadParameter, "%s: a tensor of shape %s does not lie in device memory",
                     call, ShapeText(shape).c_str());
    }
}

int64_t Strided::Elements() const {
    int64_t count = 1;
    for (int64_t size : shape) count *= size;
    return count;
}

bool Strided::ExpandTo(const std::vector<int64_t>& target) {
    if (shape.size() > target.size()) return false;
    const size_t added = target.size() - shape.size();
    shape.insert(shape.begin(), added, 1);
    strides.insert(strides.begin(), added, 0);
    for (size_t d = 0; d < target.size(); ++d) {
        if (shape[d] == target[d]) continue;
        if (shape[d] != 1) return false;
        shape[d] = target[d];
        strides[d] = 0;
    }
    return true;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
    std::string text = "(";
    for (int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
    return text + ")";
}

}  // namespace standin
