// See operators.h. What torch_npu still does through the classic interface and a program may need.
//
// Identity casts between formats of storage (npu_format_cast, copy.deepcopy, torch.load). Here the
// data of every format lie as in ND, one element behind the other, in a buffer that is large enough
// for the asked format; torch_npu keeps the format itself and reports it.
#include "operators.h"

#include <cstring>
#include <map>
#include <string>

#include "../ascendcl/classic.h"
#include "standin.h"

namespace standin {
namespace {

size_t DenseBytes(const aclTensorDesc& desc) {
    size_t elements = 1;
    for (int64_t size : desc.dims) elements *= size;
    return elements * aclDataTypeSize(desc.type);
}

aclError Identity(const aclTensorDesc* const inputs[], const aclDataBuffer* const input_data[],
                  const aclTensorDesc* const outputs[], const aclDataBuffer* const output_data[],
                  aclrtStream stream) {
    const aclDataBuffer& source = *input_data[0];
    const aclDataBuffer& target = *output_data[0];
    const size_t bytes = DenseBytes(*inputs[0]);
    if (inputs[0]->type != outputs[0]->type || bytes != DenseBytes(*outputs[0]) ||
        bytes > source.bytes || bytes > target.bytes) {
        return Fail(ACL_ERROR_INVALID_PARAM,
                    "Identity: %zu bytes of data type %d in a buffer of %zu do not become %zu of "
                    "data type %d in a buffer of %zu",
                    bytes, inputs[0]->type, source.bytes, DenseBytes(*outputs[0]), outputs[0]->type,
                    target.bytes);
    }
    if (bytes == 0) return ACL_SUCCESS;
    const void* from = HostAddress(source.data, bytes);
    void* to = HostAddress(target.data, bytes);
    if (from == nullptr || to == nullptr)
        return Fail(ACL_ERROR_INVALID_PARAM, "Identity: a tensor does not lie in device memory");
    return Launch(stream, "Identity", [from, to, bytes] {
        memmove(to, from, bytes);
        return ACL_SUCCESS;
    });
}

const std::map<std::string, ClassicOperator>& ClassicOperators() {
    static const std::map<std::string, ClassicOperator> operators = {
        {"Identity", &Identity},
    };
    return operators;
}

}  // namespace

ClassicOperator FindClassicOperator(const char* op_type) {
    const auto found = ClassicOperators().find(op_type);
    return found == ClassicOperators().end() ? nullptr : found->second;
}

}  // namespace standin
