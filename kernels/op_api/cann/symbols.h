// CANN's functions, resolved when first needed.
//
// Which of them exist depends on the CANN that is running. None is linked: the library must load
// under every version, and a provider of windows looks whether its functions are there. A function
// that is absent is a null pointer.
#pragma once

#include <initializer_list>
#include <string>

#include "cann/abi.h"

namespace ascend_moe::cann {

// One row per function: its name, and the library that has it when the process has not loaded it
// globally. libhccl passes on to libhcomm what moved there.
#define ASCEND_MOE_CANN_FUNCTIONS(ROW)                     \
    ROW(HcclCommGetHandleWithName, "libhccl.so")           \
    ROW(HcclGetRankSize, "libhccl.so")                     \
    ROW(HcclGetRankId, "libhccl.so")                       \
    ROW(HcclGetHcclBuffer, "libhccl.so")                   \
    ROW(HcclKfcAllocOpArgs, "libhccl.so")                  \
    ROW(HcclKfcFreeOpArgs, "libhccl.so")                   \
    ROW(HcclKfcOpArgsSetAlgConfig, "libhccl.so")           \
    ROW(HcclKfcOpArgsSetCommEngine, "libhccl.so")          \
    ROW(HcclCreateOpResCtx, "libhccl.so")                  \
    ROW(HcclGetRemoteIpcHcclBuf, "libhccl.so")             \
    ROW(HcclRankGraphGetLayers, "libhccl.so")              \
    ROW(HcclRankGraphGetRanksByLayer, "libhccl.so")        \
    ROW(HcclRankGraphGetInstSizeListByLayer, "libhccl.so") \
    ROW(HcomGetCommHandleByGroup, "libhccl.so")            \
    ROW(HcomGetL0TopoTypeEx, "libhccl.so")                 \
    ROW(HcclAllocComResourceByTiling, "libhccl.so")        \
    ROW(MsprofRegTypeInfo, "libprofapi.so")                \
    ROW(MsprofReportApi, "libprofapi.so")                  \
    ROW(MsprofSysCycleTime, "libprofapi.so")

// One function; called like a function pointer.
template <typename Function>
struct Symbol {
    const char* name;
    Function* call = nullptr;

    template <typename... Arguments>
    auto operator()(Arguments... arguments) const {
        return call(arguments...);
    }
};

struct Symbols {
#define ASCEND_MOE_MEMBER(name, library) Symbol<decltype(cann::name)> name{#name};
    ASCEND_MOE_CANN_FUNCTIONS(ASCEND_MOE_MEMBER)
#undef ASCEND_MOE_MEMBER
    ReportUserError report_user_error = nullptr;
};

// Looked up once per process.
const Symbols& Cann();

// Null unless the process or the named library has it.
void* Resolve(const char* name, const char* library);

// The names of those that are absent, with commas; empty when all are there.
template <typename... Functions>
std::string Missing(const Symbol<Functions>&... functions) {
    std::string names;
    const auto add = [&names](const char* name, bool there) {
        if (!there) names += (names.empty() ? "" : ", ") + std::string(name);
    };
    (add(functions.name, functions.call != nullptr), ...);
    return names;
}

}  // namespace ascend_moe::cann
