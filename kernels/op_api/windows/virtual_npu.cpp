// Windows on the virtual NPU, from the stand-in's own interface: the communicator behind the name.
#ifdef ASCEND_MOE_VIRTUAL_NPU
#include "standin.h"
#include "windows/provider.h"

namespace ascend_moe {

Attempt FromVirtualNpu(const std::string& group, aclrtStream, Windows* found) {
    const auto communicator = standin::Group::Find(group);
    if (communicator == nullptr)
        return Attempt::Failed("this process has no HCCL communicator of that name");
    found->rank = communicator->rank();
    found->ranks = communicator->size();
    found->base.assign(found->ranks, 0);
    for (uint32_t rank = 0; rank < found->ranks; ++rank) {
        if (!communicator->Reaches(rank))
            return Attempt::Unreachable("rank " + std::to_string(rank) + " is in another server");
        const standin::Window window = communicator->window(rank);
        SetWindow(found, rank, window.device_address, window.bytes);
    }
    return Attempt::Found();
}

}  // namespace ascend_moe
#endif
