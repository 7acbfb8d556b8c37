// Device memory of this process. See memory.cpp.
#pragma once

#include <cstddef>

#include "standin.h"

namespace standin {

// Host address of a copy operand: translated when it lies in device memory, itself when
// `device_side` is false. Null, with an error text, when the operand is on the wrong side or the
// range leaves its allocation.
void* CopyOperand(const char* call, const char* which, const void* address, size_t bytes,
                  bool device_side);

}  // namespace standin
