// The classic operators that there are. See operators.cpp.
#pragma once

#include "acl/acl_op.h"

namespace standin {

using ClassicOperator = aclError (*)(const aclTensorDesc* const inputs[],
                                     const aclDataBuffer* const input_data[],
                                     const aclTensorDesc* const outputs[],
                                     const aclDataBuffer* const output_data[], aclrtStream stream);

// Null for an operator that the virtual NPU does not have.
ClassicOperator FindClassicOperator(const char* op_type);

}  // namespace standin
