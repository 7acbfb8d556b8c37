// CANN's functions, resolved when first needed.
//
// Which of them exist depends on the CANN that is running. None is linked: the library must load
// under every version, and a provider of windows looks whether its functions are there. A function
// that is absent is a null pointer.
#pragma once

#include <string>
#include <vector>

#include "cann/abi.h"

namespace ascend_moe::cann {

// One row per function: its name, and the library that has it when the process has not loaded it
// globally.
#define ASCEND_MOE_CANN_FUNCTIONS(ROW)

struct Symbols {
#define ASCEND_MOE_MEMBER(name, library) decltype(&::name) name = nullptr;
    ASCEND_MOE_CANN_FUNCTIONS(ASCEND_MOE_MEMBER)
#undef ASCEND_MOE_MEMBER
};

// Looked up once per process.
const Symbols& Cann();

// Null unless the process or the named library (empty: only the process) has it.
void* Resolve(const char* name, const char* library);

}  // namespace ascend_moe::cann
