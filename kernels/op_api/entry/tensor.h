// A tensor argument, read through the public accessors of aclTensor.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "acl/acl.h"

struct aclTensor;

namespace ascend_moe {

struct Tensor {
    bool present = false;
    aclDataType type = ACL_DT_UNDEFINED;
    std::vector<int64_t> shape;
    std::vector<int64_t> strides;  // in elements
    void* first = nullptr;         // device address of element 0

    // An absent optional tensor (null) gives a Tensor that is not present.
    static Tensor Of(const aclTensor* tensor);

    int64_t elements() const;
    // Elements from the first to behind the last in memory.
    int64_t span() const;
    std::string Text() const;  // "(8, 7168)"
};

}  // namespace ascend_moe
