// What the opaque aclnn types hold here. Only the stand-in's own operators may look inside; a
// kernel library uses the accessor functions (containers.cpp), which exist on hardware too.
#pragma once

#include <cstdint>
#include <vector>

#include "standin.h"

struct aclTensor {
    std::vector<int64_t> shape;
    std::vector<int64_t> strides;  // in elements
    int64_t offset;                // in elements, from `storage`
    aclDataType type;
    aclFormat format;
    std::vector<int64_t> storage_shape;
    void* storage;  // device address
};

struct aclScalar {
    alignas(16) unsigned char bytes[16];
    aclDataType type;
};

template <typename T>
struct ArrayOf {
    std::vector<T> values;
};
struct aclIntArray : ArrayOf<int64_t> {};
struct aclFloatArray : ArrayOf<float> {};
struct aclBoolArray : ArrayOf<uint8_t> {};
struct aclTensorList : ArrayOf<const aclTensor*> {};
struct aclScalarList : ArrayOf<const aclScalar*> {};

// What phase one prepares and phase two runs once.
struct aclOpExecutor {
    const char* name;
    standin::Task run;
};

namespace standin {

// Status codes of aclnn functions.
constexpr int kAclnnNullPointer = 161001;
constexpr int kAclnnBadParameter = 161002;

// The last lines of both phases. Operators of the stand-in need no workspace.
int Prepare(const char* name, Task run, uint64_t* workspace_bytes, aclOpExecutor** executor);
int RunPrepared(aclOpExecutor* executor, uint64_t workspace_bytes, aclrtStream stream);

}  // namespace standin
