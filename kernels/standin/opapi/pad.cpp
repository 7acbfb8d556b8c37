// aclnnConstantPadNd: a tensor in a larger one, the rest filled with a value.
//
// torch_npu's ProcessGroupHCCL calls it past the dispatcher when it aligns the tensors of a list
// all_gather.
#include "strided.h"

namespace standin {
namespace {

// pad = (before, after) pairs, the last dimension first, as in torch.nn.functional.pad.
int PreparePad(const aclTensor* source_tensor, const aclIntArray* pad, const aclScalar* value,
               aclTensor* target_tensor, uint64_t* workspace_bytes, aclOpExecutor** executor) {
    const char* call = "aclnnConstantPadNd";
    const Strided source(call, source_tensor);
    const Strided target(call, target_tensor);
    if (source.error != 0 || target.error != 0)
        return source.error != 0 ? source.error : target.error;
    Strided inside = target;  // the part of the target that holds the source
    inside.shape = source.shape;
    int64_t start = 0;
    for (size_t i = 0; i < pad->values.size() / 2; ++i) {
        const size_t dim = target.shape.size() - 1 - i;
        const int64_t before = pad->values[2 * i];
        const int64_t after = pad->values[2 * i + 1];
        if (before < 0 || after < 0 || source.shape[dim] + before + after != target.shape[dim]) {
            return Fail(kAclnnBadParameter, "%s: dimension %zu of %s does not become %s", call, dim,
                        ShapeText(source.shape).c_str(), ShapeText(target.shape).c_str());
        }
        start += before * target.strides[dim];
    }
    Task run;
    WithElementType(target.type, [&](auto tag) {
        using T = typename decltype(tag)::Type;
        WithElementType(value->type, [&](auto from) {
            using From = typename decltype(from)::Type;
            From element;
            memcpy(&element, value->bytes, sizeof(element));
            inside.first = static_cast<T*>(target.first) + start;
            run = [source, target, inside, fill = Convert<T, From>(element)] {
                target.ForEach<T>([&](T* at) { *at = fill; });
                std::vector<T> row_major;
                source.ForEach<T>([&](const T* at) { row_major.push_back(*at); });
                size_t next = 0;
                inside.ForEach<T>([&](T* at) { *at = row_major[next++]; });
                return ACL_SUCCESS;
            };
        });
    });
    if (source.type != target.type || !run)
        return Fail(kAclnnBadParameter, "%s: data type %d", call, source.type);
    return Prepare(call, std::move(run), workspace_bytes, executor);
}

}  // namespace
}  // namespace standin

extern "C" {

int aclnnConstantPadNdGetWorkspaceSize(const aclTensor* source, const aclIntArray* pad,
                                       const aclScalar* value, aclTensor* target,
                                       uint64_t* workspace_bytes, aclOpExecutor** executor) {
    return standin::PreparePad(source, pad, value, target, workspace_bytes, executor);
}
int aclnnConstantPadNd(void*, uint64_t workspace_bytes, aclOpExecutor* executor,
                       aclrtStream stream) {
    return standin::RunPrepared(executor, workspace_bytes, stream);
}

}  // extern "C"
