// Windows on the virtual NPU, from the stand-in's own interface: the communicator behind the name.
#ifdef ASCEND_MOE_VIRTUAL_NPU
#include "report.h"
#include "standin.h"
#include "windows.h"

namespace ascend_moe {

int FindWindows(const std::string& group, aclrtStream, Windows* found) {
    const auto communicator = standin::Group::Find(group);
    if (communicator == nullptr)
        return Fail(kBadParameter,
                    "group_ep %s: this process has no HCCL communicator of that name",
                    group.c_str());
    *found = {};
    found->rank = communicator->rank();
    found->ranks = communicator->size();
    found->bytes = communicator->window(0).bytes;
    for (uint32_t rank = 0; rank < found->ranks; ++rank)
        found->base.push_back(
            reinterpret_cast<uint64_t>(communicator->window(rank).device_address));
    found->communicator = communicator.get();
    found->provider = "virtual NPU";
    return ACL_SUCCESS;
}

const void* CommunicatorOf(const std::string& group) { return standin::Group::Find(group).get(); }

}  // namespace ascend_moe
#endif
