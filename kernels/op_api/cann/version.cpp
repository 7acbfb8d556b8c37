// See version.h.
//
// aclsysGetVersionStr reads $ASCEND_HOME_PATH/share/info/<package>/version.info, so it knows the
// names of packages and nothing called CANN (hicann/runtime:src/acl/aclrt_impl/acl.cpp:839,
// v8.5.0). Packages are versioned apart from 9.x on; HCCL's structures are those of hcomm.
//
// A CANN that does not have it yet has aclsysGetCANNVersion, which is deprecated and goes with its
// types at the end of 2026: they are declared here, so that this compiles without them.
#include "cann/version.h"

#include "cann/symbols.h"

namespace ascend_moe::cann {
namespace {

constexpr char kRuntime[] = "libacl_rt.so";  // whatever of acl is linked has been asked before it

// aclCANNPackageVersion, acl/acl_rt.h: 512 bytes that begin with the text. Package 0 is CANN
// itself.
struct OldPackageVersion {
    char version[128];
    char rest[384];
};
constexpr int kOldCann = 0;

template <typename Function>
Function Find(const char* name) {
    return reinterpret_cast<Function>(Resolve(name, kRuntime));
}

}  // namespace

std::string HcclVersion() {
    const auto ask = Find<aclError (*)(char*, char*)>("aclsysGetVersionStr");
    if (ask == nullptr) {
        OldPackageVersion package = {};
        const auto older = Find<aclError (*)(int, OldPackageVersion*)>("aclsysGetCANNVersion");
        const bool told = older != nullptr && older(kOldCann, &package) == ACL_SUCCESS;
        return told ? package.version : "";
    }
    for (std::string package : {"hcomm", "runtime"}) {
        char version[256] = {};  // it writes 128 at most
        if (ask(package.data(), version) == ACL_SUCCESS) return version;
    }
    return "";
}

}  // namespace ascend_moe::cann
