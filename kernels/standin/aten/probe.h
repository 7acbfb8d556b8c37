// A data type that torch's CPU kernel does not know is refused by the call itself, as torch_npu
// refuses one in the first phase of an aclnn operator, and not by a task that fails later and takes
// the stream with it.
//
// The kernels cannot be asked, so they are tried: once for each operator and combination of types,
// on a small copy of the arguments, filled with zeros. Only "not implemented" counts (up to
// torch 2.7 it is no NotImplementedError). Whatever else goes wrong with zeros says nothing about
// the call.
#pragma once

#include <mutex>
#include <set>
#include <string>

#include "tensors.h"

namespace standin::aten {

constexpr int64_t kMiniature = 8;            // longest dimension of what is tried
constexpr int64_t kSmallEnough = 4096;       // elements: tried in its own shape
constexpr int64_t kLargestResult = 1 << 24;  // elements: larger ones are not worth the memory

// The operator and what decides its choice of a kernel: types, and kinds of plain numbers.
inline std::string KernelChoice(const OperatorHandle& op, const std::vector<IValue>& arguments) {
    const auto& schema = op.schema();
    std::string choice = schema.name() + "." + schema.overload_name();
    for (size_t i = 0; i < arguments.size(); ++i) {
        const IValue& value = arguments[i];
        choice += ',';
        if (schema.arguments()[i].name() == "dtype" && value.isInt()) {
            choice += std::to_string(value.toInt());
        } else if (value.isScalar()) {
            choice += value.tagKind();
        }
        ForEachTensor(value, [&](const at::Tensor& tensor) {
            choice += tensor.defined() ? c10::toString(tensor.scalar_type()) : "-";
        });
    }
    return choice;
}

inline at::Tensor Miniature(const at::Tensor& tensor) {
    if (!tensor.defined() || IsNumber(tensor)) return tensor;
    std::vector<int64_t> sizes = tensor.sizes().vec();
    if (tensor.numel() > kSmallEnough) {
        for (int64_t& size : sizes) size = std::min(size, kMiniature);
    }
    return at::zeros(sizes, at::TensorOptions().dtype(tensor.scalar_type()).device(at::kCPU));
}

inline bool WorthTrying(const std::vector<IValue>& arguments, const Stack& meta_results) {
    int64_t elements = 0;
    for (const IValue& value : meta_results) {
        ForEachTensor(value, [&](const at::Tensor& t) { elements += t.defined() ? t.numel() : 0; });
    }
    bool any = false;
    for (const IValue& value : arguments) {
        ForEachTensor(value, [&](const at::Tensor& tensor) { any = any || tensor.defined(); });
    }
    return any && elements <= kLargestResult;
}

// Raises NotImplementedError with the text of the CPU kernel.
inline void RefuseUnknownTypes(const OperatorHandle& op, const std::vector<IValue>& arguments,
                               const Stack& meta_results, int generator_argument) {
    static std::mutex mutex;
    static std::set<std::string>* tried = new std::set<std::string>();
    const std::string choice = KernelChoice(op, arguments);
    {
        std::lock_guard<std::mutex> lock(mutex);
        if (tried->count(choice) != 0 || !WorthTrying(arguments, meta_results)) return;
    }
    try {
        Stack stack;
        for (const IValue& value : arguments)
            stack.push_back(MapTensors(MoveOther(value, at::kCPU), Miniature));
        if (generator_argument >= 0) stack[generator_argument] = at::detail::createCPUGenerator();
        RunOn(op, stack);
    } catch (const c10::Error& error) {
        const std::string text = error.what_without_backtrace();
        const bool unknown = dynamic_cast<const c10::NotImplementedError*>(&error) != nullptr ||
                             text.find("not implemented for '") != std::string::npos;
        TORCH_CHECK_NOT_IMPLEMENTED(!unknown, "[virtual NPU] ", op.schema().name(), ": ", text);
    } catch (const std::exception&) {
    }
    std::lock_guard<std::mutex> lock(mutex);
    tried->insert(choice);
}

}  // namespace standin::aten
