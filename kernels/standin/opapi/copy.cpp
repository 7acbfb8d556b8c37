// aclnnInplaceCopy and aclnnCast: element-wise copies between strided tensors, with conversion.
//
// torch_npu sends every copy on one device here that is not a plain run of bytes: contiguous(),
// to(dtype), slices, broadcasts.
#include "strided.h"

namespace standin {
namespace {

template <typename To, typename From>
void CopyElements(const Strided& target, const Strided& source) {
    std::vector<From> row_major;  // the source may overlap the target
    row_major.reserve(source.Elements());
    source.ForEach<From>([&](const From* value) { row_major.push_back(*value); });
    size_t next = 0;
    target.ForEach<To>([&](To* value) { *value = Convert<To, From>(row_major[next++]); });
}

int PrepareCopy(const char* call, const aclTensor* target_tensor, const aclTensor* source_tensor,
                uint64_t* workspace_bytes, aclOpExecutor** executor) {
    const Strided target(call, target_tensor);
    Strided source(call, source_tensor);
    if (target.error != 0 || source.error != 0)
        return target.error != 0 ? target.error : source.error;
    if (!source.ExpandTo(target.shape)) {
        return Fail(kAclnnBadParameter, "%s: shape %s cannot be copied into %s", call,
                    ShapeText(source.shape).c_str(), ShapeText(target.shape).c_str());
    }
    Task run;
    const bool known = WithElementType(target.type, [&](auto to) {
        WithElementType(source.type, [&](auto from) {
            run = [target, source] {
                CopyElements<typename decltype(to)::Type, typename decltype(from)::Type>(target,
                                                                                         source);
                return ACL_SUCCESS;
            };
        });
    });
    if (!known || !run) {
        return Fail(kAclnnBadParameter, "%s: no conversion from data type %d to %d", call,
                    source.type, target.type);
    }
    return Prepare(call, std::move(run), workspace_bytes, executor);
}

}  // namespace
}  // namespace standin

extern "C" {

int aclnnInplaceCopyGetWorkspaceSize(const aclTensor* target, const aclTensor* source,
                                     uint64_t* workspace_bytes, aclOpExecutor** executor) {
    return standin::PrepareCopy("aclnnInplaceCopy", target, source, workspace_bytes, executor);
}
int aclnnInplaceCopy(void*, uint64_t workspace_bytes, aclOpExecutor* executor, aclrtStream stream) {
    return standin::RunPrepared(executor, workspace_bytes, stream);
}

int aclnnCastGetWorkspaceSize(const aclTensor* source, aclDataType, aclTensor* target,
                              uint64_t* workspace_bytes, aclOpExecutor** executor) {
    return standin::PrepareCopy("aclnnCast", target, source, workspace_bytes, executor);
}
int aclnnCast(void*, uint64_t workspace_bytes, aclOpExecutor* executor, aclrtStream stream) {
    return standin::RunPrepared(executor, workspace_bytes, stream);
}

}  // extern "C"
