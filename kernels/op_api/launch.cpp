// See launch.h. What is the same on an NPU and on the virtual one: a launch that fails is an error
// of its call.
//
// <<<>>> returns nothing. A launch that did not get onto the stream shows in the last error of the
// thread, as the examples of the vendor ask for it (asc-devkit, examples/03_simt_api); otherwise
// its peers would wait for it and this rank would know of nothing.
#include "launch.h"

#include "report.h"
#include "runtime.h"

namespace ascend_moe {
namespace {

constexpr const char* kNames[] = {"ascend_moe_meet",
                                  "ascend_moe_open",
                                  "ascend_moe_tell",
                                  "ascend_moe_pack",
                                  "ascend_moe_dispatch",
                                  "ascend_moe_combine",
                                  "ascend_moe_hierarchy_open",
                                  "ascend_moe_hierarchy_dispatch",
                                  "ascend_moe_hierarchy_combine",
                                  "ascend_moe_mesh_open",
                                  "ascend_moe_mesh_dispatch",
                                  "ascend_moe_mesh_combine",
                                  "ascend_moe_cores",
                                  "ascend_moe_row",
                                  "ascend_moe_ping_pong",
                                  "ascend_moe_measure"};

}  // namespace

const char* NameOf(Kernel kernel) { return kNames[static_cast<int>(kernel)]; }

int Start(const Launch& launch, aclrtStream stream) {
    const int older = TakeLastError();
    if (older != ACL_SUCCESS)
        Log(ACL_WARNING, "error %d of the runtime, from before the launch of %s, had not been read",
            older, NameOf(launch.kernel));
    Enqueue(launch, stream);
    const int status = TakeLastError();
    if (status == ACL_SUCCESS) return ACL_SUCCESS;
    return Fail(status, "%s on %u cores could not be launched: error %d of the runtime. %s",
                NameOf(launch.kernel), launch.blocks, status, RuntimeText().c_str());
}

}  // namespace ascend_moe
