// What is needed of Python and torch without their headers: a few functions of Python's stable ABI,
// and the structures of DLPack 1.x with the table of functions by which torch gives its tensors to
// other libraries (`torch.Tensor.__dlpack_c_exchange_api__`).
//
// Called only with the interpreter lock held (ctypes.PyDLL), except where it says otherwise.
#pragma once

#include <cstdint>

extern "C" {
struct _object;
struct _ts;
_object* PyTuple_New(intptr_t count);
_object* PyTuple_GetItem(_object* tuple, intptr_t index);  // borrowed
int PyTuple_SetItem(_object* tuple, intptr_t index, _object* item);
_object* PyObject_Type(_object* object);
void Py_IncRef(_object* object);
void Py_DecRef(_object* object);
void PyErr_Clear();
_ts* PyEval_SaveThread();
void PyEval_RestoreThread(_ts* state);
}

namespace moe {

struct DlTensor {
    char* data;
    int32_t device, device_id;
    int32_t dims;
    uint8_t code, bits;
    uint16_t lanes;
    const int64_t* shape;
    const int64_t* strides;
    uint64_t offset;
};

constexpr int32_t kCpu = 1;
constexpr uint32_t kDlpackMajor = 1;

// DLManagedTensorVersioned
struct DlManaged {
    uint32_t major, minor;
    void* owner;
    void (*dropped)(DlManaged* self);  // by whoever lets go of it last, with or without the lock
    uint64_t flags;
    DlTensor tensor;
};

// DLPackExchangeAPI
struct DlTable {
    uint32_t major, minor;
    const DlTable* older;
    void* allocate;
    void* export_managed;
    int (*import_managed)(DlManaged* managed, _object** tensor);
    int (*look)(_object* tensor, DlTensor* seen);
    void* stream;
};

}  // namespace moe
