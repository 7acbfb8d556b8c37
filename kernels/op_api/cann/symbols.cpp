// See symbols.h.
#include "cann/symbols.h"

#include <dlfcn.h>

namespace ascend_moe::cann {
namespace {

void* Open(const char* library) {
    // Left open: the functions are used until the process ends. Never global: torch_npu and other
    // libraries must keep finding what they found before.
    return dlopen(library, RTLD_LAZY | RTLD_LOCAL);
}

Symbols LookUp() {
    Symbols found;
#define ASCEND_MOE_RESOLVE(name, library) \
    found.name.call = reinterpret_cast<decltype(&cann::name)>(Resolve(#name, library));
    ASCEND_MOE_CANN_FUNCTIONS(ASCEND_MOE_RESOLVE)
#undef ASCEND_MOE_RESOLVE
    for (const char* name : {kReportUserError, kReportUserErrorOld}) {
        if (found.report_user_error == nullptr)
            found.report_user_error =
                reinterpret_cast<ReportUserError>(Resolve(name, "liberror_manager.so"));
    }
    return found;
}

}  // namespace

void* Resolve(const char* name, const char* library) {
    if (void* found = dlsym(RTLD_DEFAULT, name)) return found;
    // What moved from libhccl to libhcomm is looked for in both.
    for (const char* from : {library, "libhcomm.so"}) {
        void* handle = Open(from);
        void* found = handle == nullptr ? nullptr : dlsym(handle, name);
        if (found != nullptr) return found;
    }
    return nullptr;
}

const Symbols& Cann() {
    static const Symbols* symbols = new Symbols(LookUp());  // also used by static destructors
    return *symbols;
}

}  // namespace ascend_moe::cann
