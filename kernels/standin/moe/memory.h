// Tensors as device-side code sees them: translated addresses, any strides.
#pragma once

#include <vector>

#include "../../op_api/entry/tensor.h"
#include "standin.h"

namespace ascend_moe {

class DeviceTensor {
 public:
    DeviceTensor() = default;

    // ACL_SUCCESS also for an absent or empty tensor.
    static int Resolve(const char* name, const Tensor& tensor, DeviceTensor* resolved) {
        resolved->tensor_ = tensor;
        if (!tensor.present || tensor.elements() == 0) return ACL_SUCCESS;
        resolved->host_ =
            standin::HostAddress(tensor.first, tensor.span() * aclDataTypeSize(tensor.type));
        if (resolved->host_ != nullptr) return ACL_SUCCESS;
        return standin::Fail(161002, "%s: a tensor of shape %s does not lie in device memory", name,
                             tensor.Text().c_str());
    }

    bool present() const { return tensor_.present; }
    aclDataType type() const { return tensor_.type; }
    int64_t size(size_t dim) const { return tensor_.shape[dim]; }
    size_t dimensions() const { return tensor_.shape.size(); }
    int64_t elements() const { return tensor_.present ? tensor_.elements() : 0; }

    // All elements, row-major.
    template <typename T>
    std::vector<T> Load() const {
        std::vector<T> values;
        values.reserve(elements());
        if (elements() > 0) LoadFrom<T>(0, static_cast<const T*>(host_), &values);
        return values;
    }
    // Rows [begin, end) of a matrix, row-major.
    template <typename T>
    std::vector<T> LoadRows(int64_t begin, int64_t end) const {
        std::vector<T> values;
        values.reserve((end - begin) * size(1));
        for (int64_t row = begin; row < end; ++row) {
            for (int64_t column = 0; column < size(1); ++column)
                values.push_back(At<T>(row, column));
        }
        return values;
    }
    template <typename T>
    void StoreRow(int64_t row, const T* values) const {
        for (int64_t column = 0; column < size(1); ++column) At<T>(row, column) = values[column];
    }
    // Element of a vector; writing beyond its end is dropped, since some outputs may be empty.
    template <typename T>
    void Store(int64_t index, T value) const {
        if (index < elements()) static_cast<T*>(host_)[index * tensor_.strides[0]] = value;
    }

 private:
    template <typename T>
    T& At(int64_t row, int64_t column) const {
        return static_cast<T*>(host_)[row * tensor_.strides[0] + column * tensor_.strides[1]];
    }
    template <typename T>
    void LoadFrom(size_t dim, const T* at, std::vector<T>* values) const {
        if (dim == tensor_.shape.size()) {
            values->push_back(*at);
            return;
        }
        for (int64_t i = 0; i < size(dim); ++i)
            LoadFrom(dim + 1, at + i * tensor_.strides[dim], values);
    }

    Tensor tensor_;
    void* host_ = nullptr;
};

}  // namespace ascend_moe
