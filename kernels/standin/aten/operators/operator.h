// How an aclnn operator of torch_npu becomes ATen on the CPU.
//
// A row of the table at the end of each file of this folder is the C prototype of one aclnn
// function and the implementation that serves it:
//
//   ACLNN(aclnnSwiGlu, (Handle x, int64_t dim, Handle y), SwiGlu, x, dim, y)
//
// Several generations of an operator are several rows with one implementation. It is called in
// phase one with tensors that lie over device memory, checks what it was given, and returns the
// work, which the stream does later, and again each time a captured graph is replayed:
//
//   Work SwiGlu(const Tensor& x, int64_t dim, Tensor y)
//
// Phase one must not touch data. A refusal there is an ordinary exception of that call; what only
// the data can tell (a group list beyond the rows) ends the stream, as an exception of a kernel
// does.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <string>
#include <vector>

#include "../../nnopbase/containers.h"

namespace standin {

using at::Tensor;
using Tensors = std::vector<Tensor>;
using Work = std::function<void()>;

// What a prototype calls its parameters.
using Handle = const aclTensor*;
using HandleList = const aclTensorList*;
using Integers = const aclIntArray*;
using Text = const char*;

// The CPU tensor over the memory of `tensor`, undefined for null. Throws when it does not lie in
// device memory or torch has no such type.
Tensor Over(Handle tensor);

inline Tensor Argument(Handle tensor) { return Over(tensor); }
Tensors Argument(HandleList list);
inline std::vector<int64_t> Argument(Integers array) {
    return array == nullptr ? std::vector<int64_t>() : array->values;
}
inline std::string Argument(Text text) { return text == nullptr ? "" : text; }
template <typename Number, std::enable_if_t<std::is_arithmetic_v<Number>, int> = 0>
Number Argument(Number number) {
    return number;
}

// Both phases of every operator. `plan` calls the implementation.
int PlanOperator(const char* name, const std::function<Work()>& plan, uint64_t* workspace_bytes,
                 aclOpExecutor** executor);

#define STANDIN_UNPACK(...) __VA_ARGS__
#define ACLNN(name, prototype, implementation, ...)                                            \
    extern "C" int name##GetWorkspaceSize(STANDIN_UNPACK prototype, uint64_t* workspace_bytes, \
                                          aclOpExecutor** executor) {                          \
        return standin::PlanOperator(                                                          \
            #name,                                                                             \
            [&] {                                                                              \
                const auto call = [](const auto&... arguments) {                               \
                    return standin::implementation(standin::Argument(arguments)...);           \
                };                                                                             \
                return call(__VA_ARGS__);                                                      \
            },                                                                                 \
            workspace_bytes, executor);                                                        \
    }                                                                                          \
    extern "C" int name(void*, uint64_t workspace_bytes, aclOpExecutor* executor,              \
                        aclrtStream stream) {                                                  \
        return standin::RunPrepared(executor, workspace_bytes, stream);                        \
    }

// Absent optional tensors come as null, or, from some callers, as an empty tensor.
inline bool Given(const Tensor& tensor) { return tensor.defined() && tensor.numel() > 0; }
inline Tensor Float(const Tensor& tensor) { return tensor.to(at::kFloat); }
// Half to even and saturating, as the vector unit casts; what is not a number becomes 0.
Tensor ToInt8(const Tensor& values);

}  // namespace standin
