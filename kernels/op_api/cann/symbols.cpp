// See symbols.h.
#include "cann/symbols.h"

#include <dlfcn.h>

namespace ascend_moe::cann {

void* Resolve(const char* name, const char* library) {
    if (void* found = dlsym(RTLD_DEFAULT, name)) return found;
    if (*library == '\0') return nullptr;
    // Left open: the functions are used until the process ends.
    void* handle = dlopen(library, RTLD_LAZY | RTLD_LOCAL);
    return handle == nullptr ? nullptr : dlsym(handle, name);
}

}  // namespace ascend_moe::cann
