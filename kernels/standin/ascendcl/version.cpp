// The CANN that is played, and what it answers when asked for its version.
//
// CANN 8.5 and later are packages with a version each, and aclsysGetVersionStr reads that of one:
// $ASCEND_HOME_PATH/share/info/<package>/version.info, a dash for an underscore and the reverse
// (hicann/runtime:src/acl/aclrt_impl/acl.cpp:876 v8.5.0, :962 v9.0.0, :973 v9.1.0). There is none
// of the name CANN. Here all packages have the version of the CANN; for tests only,
// ASCEND_MOE_VNPU_HCOMM=VERSION gives another to hcomm, and an empty one takes the package away.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "standin.h"

namespace standin {
namespace {

// From 9.0 on HCCL has the Kfc functions, and HcclGetHcclBuffer shows the "in" and the "out"
// buffer.
constexpr Cann kCanns[] = {
    {"8.5.0", false, false},
    {"9.0.0", true, true},
    {"9.1.0", true, true},
};
constexpr const Cann& kDefault = kCanns[1];

// Of which this installation has parts. acl.cpp:66 maps the names of the older function to them.
constexpr const char* kPackages[] = {"runtime",          "hccl",      "hcomm",     "opbase",
                                     "bisheng-compiler", "oam-tools", "ops-legacy"};

std::string Dashed(std::string name) {
    for (char& letter : name) letter = letter == '_' ? '-' : letter;
    return name;
}

// Empty when there is no such package.
std::string VersionOf(const std::string& package) {
    const char* hcomm = getenv("ASCEND_MOE_VNPU_HCOMM");
    if (package == "hcomm" && hcomm != nullptr) return hcomm;
    for (const char* known : kPackages) {
        if (Dashed(package) == known) return PlayedCann()->version;
    }
    return "";
}

}  // namespace

const Cann* PlayedCann() {
    const char* chosen = getenv("ASCEND_MOE_VNPU_CANN");
    if (chosen == nullptr || *chosen == '\0') return &kDefault;
    for (const Cann& cann : kCanns) {
        if (strcmp(cann.version, chosen) == 0) return &cann;
    }
    return nullptr;
}

}  // namespace standin

using standin::Fail;

extern "C" {

aclError aclsysGetVersionStr(char* package, char* version) {
    const std::string found =
        package == nullptr || standin::PlayedCann() == nullptr ? "" : standin::VersionOf(package);
    if (found.empty())
        return Fail(ACL_ERROR_INVALID_FILE, "aclsysGetVersionStr: there is no package %s",
                    package == nullptr ? "(null)" : package);
    snprintf(version, ACL_PKG_VERSION_MAX_SIZE, "%s", found.c_str());
    return ACL_SUCCESS;
}

// Package "CANN" is that of runtime, acl.cpp:66.
aclError aclsysGetCANNVersion(aclCANNPackageName name, aclCANNPackageVersion* version) {
    memset(version, 0, sizeof(*version));
    if (name == ACL_PKG_NAME_DRIVER)
        return Fail(ACL_ERROR_INVALID_FILE, "aclsysGetCANNVersion: there is no driver");
    char runtime[] = "runtime";
    return aclsysGetVersionStr(runtime, version->version);
}

}  // extern "C"
