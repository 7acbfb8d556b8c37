// See ../launch.h: kernels on an NPU.
#include "../launch.h"

#include "npu/launch.h"

namespace ascend_moe {
namespace {

using Function = void (*)(uint32_t, void*, uint8_t* const*, const void*);

constexpr Function kLaunch[] = {ascend_moe_launch_meet,
                                ascend_moe_launch_open,
                                ascend_moe_launch_tell,
                                ascend_moe_launch_pack,
                                ascend_moe_launch_dispatch,
                                ascend_moe_launch_combine,
                                ascend_moe_launch_hierarchy_open,
                                ascend_moe_launch_hierarchy_dispatch,
                                ascend_moe_launch_hierarchy_combine,
                                ascend_moe_launch_mesh_open,
                                ascend_moe_launch_mesh_dispatch,
                                ascend_moe_launch_mesh_combine,
                                ascend_moe_launch_cores,
                                ascend_moe_launch_row,
                                ascend_moe_launch_ping_pong,
                                ascend_moe_launch_measure};

}  // namespace

void Enqueue(const Launch& launch, aclrtStream stream) {
    std::vector<uint8_t*> at;
    for (const Operand& operand : launch.operands)
        at.push_back(reinterpret_cast<uint8_t*>(operand.address));
    kLaunch[static_cast<int>(launch.kernel)](launch.blocks, stream, at.data(), launch.value.data());
}

bool ProcessEnded(const std::string&, uint32_t) { return false; }

bool StreamsShowFailures() { return false; }

int StartFailing(const char*, int status, const std::string&, aclrtStream) { return status; }

}  // namespace ascend_moe
