// libnnopbase: the containers in which aclnn operators receive their arguments, and the accessors
// that read them.
//
// torch_npu finds the creating functions by name through libopapi, which depends on this library. A
// tensor's data pointer is the start of its storage; the view offset and the strides count
// elements.
#include "containers.h"

#include <cstring>
#include <memory>

namespace {

template <typename List, typename T>
List* MakeArray(const T* values, uint64_t size) {
    auto array = std::make_unique<List>();
    array->values.assign(values, values + size);
    return array.release();
}

// The accessors hand out an array that the caller deletes.
int HandOut(const std::vector<int64_t>& values, int64_t** copy, uint64_t* size) {
    *copy = new int64_t[values.size()];
    std::copy(values.begin(), values.end(), *copy);
    *size = values.size();
    return ACL_SUCCESS;
}

}  // namespace

namespace standin {

int Prepare(const char* name, Task run, uint64_t* workspace_bytes, aclOpExecutor** executor) {
    *workspace_bytes = 0;
    *executor = new aclOpExecutor{name, std::move(run)};
    return ACL_SUCCESS;
}

int RunPrepared(aclOpExecutor* executor, uint64_t workspace_bytes, aclrtStream stream) {
    if (executor == nullptr)
        return Fail(kAclnnNullPointer, "an aclnn operator was started without its first phase");
    const std::unique_ptr<aclOpExecutor> once(executor);
    if (workspace_bytes != 0) {
        return Fail(kAclnnBadParameter, "%s: workspace of %zu bytes, asked for 0", once->name,
                    size_t{workspace_bytes});
    }
    return Launch(stream, once->name, std::move(once->run));
}

}  // namespace standin

extern "C" {

aclTensor* aclCreateTensor(const int64_t* shape, uint64_t rank, aclDataType type,
                           const int64_t* strides, int64_t offset, aclFormat format,
                           const int64_t* storage_shape, uint64_t storage_rank, void* storage) {
    auto tensor = std::make_unique<aclTensor>();
    tensor->shape.assign(shape, shape + rank);
    if (strides != nullptr) {
        tensor->strides.assign(strides, strides + rank);
    } else {
        tensor->strides.assign(rank, 1);
        for (uint64_t d = rank; d-- > 1;) tensor->strides[d - 1] = tensor->strides[d] * shape[d];
    }
    tensor->offset = offset;
    tensor->type = type;
    tensor->format = format;
    tensor->storage_shape.assign(storage_shape, storage_shape + storage_rank);
    tensor->storage = storage;
    return tensor.release();
}
int aclDestroyTensor(const aclTensor* tensor) {
    delete tensor;
    return ACL_SUCCESS;
}

aclScalar* aclCreateScalar(void* value, aclDataType type) {
    auto scalar = std::make_unique<aclScalar>();
    memset(scalar->bytes, 0, sizeof(scalar->bytes));
    memcpy(scalar->bytes, value, std::min(aclDataTypeSize(type), sizeof(scalar->bytes)));
    scalar->type = type;
    return scalar.release();
}
int aclDestroyScalar(const aclScalar* scalar) {
    delete scalar;
    return ACL_SUCCESS;
}

aclIntArray* aclCreateIntArray(const int64_t* values, uint64_t size) {
    return MakeArray<aclIntArray>(values, size);
}
aclFloatArray* aclCreateFloatArray(const float* values, uint64_t size) {
    return MakeArray<aclFloatArray>(values, size);
}
aclBoolArray* aclCreateBoolArray(const bool* values, uint64_t size) {
    return MakeArray<aclBoolArray>(values, size);
}
aclTensorList* aclCreateTensorList(const aclTensor* const* values, uint64_t size) {
    return MakeArray<aclTensorList>(values, size);
}
aclScalarList* aclCreateScalarList(const aclScalar* const* values, uint64_t size) {
    return MakeArray<aclScalarList>(values, size);
}

int aclDestroyIntArray(const aclIntArray* array) {
    delete array;
    return ACL_SUCCESS;
}
int aclDestroyFloatArray(const aclFloatArray* array) {
    delete array;
    return ACL_SUCCESS;
}
int aclDestroyBoolArray(const aclBoolArray* array) {
    delete array;
    return ACL_SUCCESS;
}
// A list owns its members.
int aclDestroyTensorList(const aclTensorList* list) {
    for (const aclTensor* tensor : list->values) delete tensor;
    delete list;
    return ACL_SUCCESS;
}
int aclDestroyScalarList(const aclScalarList* list) {
    for (const aclScalar* scalar : list->values) delete scalar;
    delete list;
    return ACL_SUCCESS;
}

int aclGetViewShape(const aclTensor* tensor, int64_t** shape, uint64_t* rank) {
    return HandOut(tensor->shape, shape, rank);
}
int aclGetViewStrides(const aclTensor* tensor, int64_t** strides, uint64_t* rank) {
    return HandOut(tensor->strides, strides, rank);
}
int aclGetStorageShape(const aclTensor* tensor, int64_t** shape, uint64_t* rank) {
    return HandOut(tensor->storage_shape, shape, rank);
}
int aclGetViewOffset(const aclTensor* tensor, int64_t* offset) {
    *offset = tensor->offset;
    return ACL_SUCCESS;
}
int aclGetDataType(const aclTensor* tensor, aclDataType* type) {
    *type = tensor->type;
    return ACL_SUCCESS;
}
int aclGetFormat(const aclTensor* tensor, aclFormat* format) {
    *format = tensor->format;
    return ACL_SUCCESS;
}
int aclGetRawTensorAddr(const aclTensor* tensor, void** address) {
    *address = tensor->storage;
    return ACL_SUCCESS;
}

}  // extern "C"
