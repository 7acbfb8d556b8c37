// aclnnInplaceZero, aclnnInplaceOne, aclnnInplaceFillScalar: one value into every element.
#include "strided.h"

namespace standin {
namespace {

int PrepareFill(const char* call, const aclTensor* tensor, const aclScalar& value,
                uint64_t* workspace_bytes, aclOpExecutor** executor) {
    const Strided target(call, tensor);
    if (target.error != 0) return target.error;
    Task run;
    const bool known = WithElementType(target.type, [&](auto to) {
        using To = typename decltype(to)::Type;
        WithElementType(value.type, [&](auto from) {
            using From = typename decltype(from)::Type;
            From element;
            memcpy(&element, value.bytes, sizeof(element));
            run = [target, converted = Convert<To, From>(element)] {
                target.ForEach<To>([&](To* at) { *at = converted; });
                return ACL_SUCCESS;
            };
        });
    });
    if (!known || !run)
        return Fail(kAclnnBadParameter, "%s: data type %d is not known", call, target.type);
    return Prepare(call, std::move(run), workspace_bytes, executor);
}

aclScalar Constant(float value) {
    aclScalar scalar = {{}, ACL_FLOAT};
    memcpy(scalar.bytes, &value, sizeof(value));
    return scalar;
}

}  // namespace
}  // namespace standin

extern "C" {

int aclnnInplaceZeroGetWorkspaceSize(const aclTensor* tensor, uint64_t* workspace_bytes,
                                     aclOpExecutor** executor) {
    return standin::PrepareFill("aclnnInplaceZero", tensor, standin::Constant(0), workspace_bytes,
                                executor);
}
int aclnnInplaceZero(void*, uint64_t workspace_bytes, aclOpExecutor* executor, aclrtStream stream) {
    return standin::RunPrepared(executor, workspace_bytes, stream);
}

int aclnnInplaceOneGetWorkspaceSize(const aclTensor* tensor, uint64_t* workspace_bytes,
                                    aclOpExecutor** executor) {
    return standin::PrepareFill("aclnnInplaceOne", tensor, standin::Constant(1), workspace_bytes,
                                executor);
}
int aclnnInplaceOne(void*, uint64_t workspace_bytes, aclOpExecutor* executor, aclrtStream stream) {
    return standin::RunPrepared(executor, workspace_bytes, stream);
}

int aclnnInplaceFillScalarGetWorkspaceSize(aclTensor* tensor, const aclScalar* value,
                                           uint64_t* workspace_bytes, aclOpExecutor** executor) {
    return standin::PrepareFill("aclnnInplaceFillScalar", tensor, *value, workspace_bytes,
                                executor);
}
int aclnnInplaceFillScalar(void*, uint64_t workspace_bytes, aclOpExecutor* executor,
                           aclrtStream stream) {
    return standin::RunPrepared(executor, workspace_bytes, stream);
}

}  // extern "C"
