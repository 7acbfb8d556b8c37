// The tensors in the arguments of an operator, and the memory of a device tensor as the device sees
// it.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <vector>

#include "standin.h"

namespace standin::aten {

using c10::IValue;
using c10::OperatorHandle;
using torch::jit::Stack;

// A copy of `value` in which every tensor is replaced by change(tensor).
template <typename Change>
IValue MapTensors(const IValue& value, const Change& change) {
    if (value.isTensor()) return change(value.toTensor());
    if (value.isTensorList()) {
        c10::List<at::Tensor> list;
        for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(change(tensor));
        return list;
    }
    if (value.isOptionalTensorList()) {
        c10::List<std::optional<at::Tensor>> list;
        for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
            list.push_back(tensor.has_value() ? std::optional<at::Tensor>(change(*tensor))
                                              : std::nullopt);
        }
        return list;
    }
    return value;
}

template <typename Visit>
void ForEachTensor(const IValue& value, const Visit& visit) {
    MapTensors(value, [&](const at::Tensor& tensor) {
        visit(tensor);
        return tensor;
    });
}

inline bool OnDevice(const at::Tensor& tensor) {
    return tensor.defined() && tensor.device().type() == c10::DeviceType::PrivateUse1;
}

// Python numbers keep their kind of type promotion, which belongs to the CPU tensor.
inline bool IsNumber(const at::Tensor& tensor) {
    return tensor.unsafeGetTensorImpl()->is_wrapped_number();
}

// Replaces what only the NPU understands: its device by `device`; its generator by none, which
// seed.h gives back.
inline IValue MoveOther(const IValue& value, c10::Device device) {
    if (value.isDevice() && value.toDevice().type() == c10::DeviceType::PrivateUse1) return device;
    if (value.isGenerator()) return IValue();
    return value;
}

// Holds addresses only, so that it can outlive the tensor in a queue as a kernel launch does.
struct DeviceTensor {
    void* host = nullptr;
    std::vector<int64_t> sizes;
    std::vector<int64_t> strides;
    c10::ScalarType type;
    bool number = false;

    explicit DeviceTensor(const at::Tensor& tensor)
        : sizes(tensor.sizes().vec()),
          strides(tensor.strides().vec()),
          type(tensor.scalar_type()),
          number(IsNumber(tensor)) {
        if (tensor.numel() == 0) return;
        int64_t span = 1;
        for (size_t d = 0; d < sizes.size(); ++d) span += (sizes[d] - 1) * strides[d];
        host = HostAddress(tensor.data_ptr(), span * tensor.element_size());
        TORCH_CHECK(host != nullptr, "[virtual NPU] a tensor of shape ", tensor.sizes(),
                    " has no live device memory");
    }

    at::Tensor AsCpu() const {
        const auto options = at::TensorOptions().dtype(type).device(at::kCPU);
        if (host == nullptr) return at::empty_strided(sizes, strides, options);
        at::Tensor tensor = at::from_blob(host, sizes, strides, [](void*) {}, options);
        if (number) tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
        return tensor;
    }
};

inline std::vector<IValue> Arguments(const OperatorHandle& op, const Stack& stack) {
    return {stack.end() - op.schema().arguments().size(), stack.end()};
}

inline void RunOn(const OperatorHandle& op, Stack& stack) {
    at::NoGradGuard no_grad;
    at::AutoDispatchBelowAutograd below_autograd;
    op.callBoxed(stack);
}

}  // namespace standin::aten
