// What the containers of the classic single-operator interface hold. See classic.cpp.
#pragma once

#include <vector>

#include "acl/acl_op.h"

struct aclTensorDesc {
    aclDataType type;
    aclFormat format;
    std::vector<int64_t> dims;  // of the tensor as a program sees it, not of an internal format
};

struct aclDataBuffer {
    void* data;
    size_t bytes;
};
