// See operator.h.
#include "operator.h"

#include <ATen/core/grad_mode.h>

#include <optional>

namespace standin {
namespace {

std::optional<at::ScalarType> TorchType(aclDataType type) {
    switch (type) {
        case ACL_FLOAT:
            return at::kFloat;
        case ACL_FLOAT16:
            return at::kHalf;
        case ACL_BF16:
            return at::kBFloat16;
        case ACL_DOUBLE:
            return at::kDouble;
        case ACL_INT8:
            return at::kChar;
        case ACL_UINT8:
            return at::kByte;
        case ACL_INT16:
            return at::kShort;
        case ACL_INT32:
            return at::kInt;
        case ACL_INT64:
        case ACL_UINT64:  // quantisation parameters: bits, not numbers
            return at::kLong;
        case ACL_BOOL:
            return at::kBool;
        default:
            return std::nullopt;
    }
}

}  // namespace

Tensor Over(Handle tensor) {
    if (tensor == nullptr) return Tensor();
    const std::optional<at::ScalarType> type = TorchType(tensor->type);
    TORCH_CHECK(type.has_value(), "data type ", int{tensor->type}, " is not available");
    const auto options = at::TensorOptions().dtype(*type).device(at::kCPU);
    int64_t span = 1;  // elements from the first to behind the last
    for (size_t d = 0; d < tensor->shape.size(); ++d) {
        if (tensor->shape[d] == 0) return at::empty(tensor->shape, options);
        span += (tensor->shape[d] - 1) * tensor->strides[d];
    }
    const size_t width = at::elementSize(*type);
    const char* first = static_cast<const char*>(tensor->storage) + tensor->offset * width;
    void* host = HostAddress(first, span * width);
    TORCH_CHECK(host != nullptr, "a tensor of shape ", at::IntArrayRef(tensor->shape),
                " does not lie in device memory");
    return at::from_blob(host, tensor->shape, tensor->strides, [](void*) {}, options);
}

Tensors Argument(HandleList list) {
    Tensors tensors;
    if (list == nullptr) return tensors;
    for (Handle tensor : list->values) tensors.push_back(Over(tensor));
    return tensors;
}

int PlanOperator(const char* name, const std::function<Work()>& plan, uint64_t* workspace_bytes,
                 aclOpExecutor** executor) {
    *workspace_bytes = 0;
    *executor = nullptr;
    try {
        const Work work = plan();
        const auto run = [name, work] {
            try {
                const at::NoGradGuard no_grad;
                work();
                return int{ACL_SUCCESS};
            } catch (const c10::Error& error) {
                return Fail(ACL_ERROR_RT_AICORE_EXCEPTION, "%s: %s", name,
                            error.what_without_backtrace());
            } catch (const std::exception& error) {
                return Fail(ACL_ERROR_RT_AICORE_EXCEPTION, "%s: %s", name, error.what());
            }
        };
        return Prepare(name, run, workspace_bytes, executor);
    } catch (const c10::Error& error) {
        return Fail(kAclnnBadParameter, "%s: %s", name, error.what_without_backtrace());
    }
}

Tensor ToInt8(const Tensor& values) {
    return values.nan_to_num(0.0).round().clamp(-128, 127).to(at::kChar);
}

}  // namespace standin
