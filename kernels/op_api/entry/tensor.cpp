// See tensor.h. The accessors are CANN's (libnnopbase); their header is not part of the torch_npu
// wheel.
#include "tensor.h"

#include <memory>

extern "C" {
int aclGetViewShape(const aclTensor* tensor, int64_t** shape, uint64_t* rank);
int aclGetViewStrides(const aclTensor* tensor, int64_t** strides, uint64_t* rank);
int aclGetViewOffset(const aclTensor* tensor, int64_t* offset);
int aclGetDataType(const aclTensor* tensor, aclDataType* type);
int aclGetRawTensorAddr(const aclTensor* tensor, void** address);
}

namespace ascend_moe {
namespace {

// The accessors hand out arrays that the caller deletes.
std::vector<int64_t> Take(int (*accessor)(const aclTensor*, int64_t**, uint64_t*),
                          const aclTensor* tensor) {
    int64_t* values = nullptr;
    uint64_t count = 0;
    accessor(tensor, &values, &count);
    const std::unique_ptr<int64_t[]> owner(values);
    return std::vector<int64_t>(values, values + count);
}

}  // namespace

Tensor Tensor::Of(const aclTensor* tensor) {
    Tensor view;
    if (tensor == nullptr) return view;
    view.present = true;
    view.shape = Take(aclGetViewShape, tensor);
    view.strides = Take(aclGetViewStrides, tensor);
    aclGetDataType(tensor, &view.type);
    int64_t offset = 0;
    void* storage = nullptr;
    aclGetViewOffset(tensor, &offset);
    aclGetRawTensorAddr(tensor, &storage);
    view.first =
        static_cast<char*>(storage) + offset * static_cast<int64_t>(aclDataTypeSize(view.type));
    return view;
}

int64_t Tensor::elements() const {
    int64_t count = 1;
    for (int64_t size : shape) count *= size;
    return count;
}

int64_t Tensor::span() const {
    int64_t span = 1;
    for (size_t d = 0; d < shape.size(); ++d) span += (shape[d] - 1) * strides[d];
    return elements() == 0 ? 0 : span;
}

std::string Tensor::Text() const {
    if (!present) return "None";
    std::string text = "(";
    for (int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
    return text + ")";
}

}  // namespace ascend_moe
