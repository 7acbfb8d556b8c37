// HcclGroupStart and HcclGroupEnd: the calls of a thread in between are launched together, at the
// end.
//
// Messages then make progress together (point_to_point.cpp). Collectives are launched in the order
// of their calls, and the end waits for their streams, as in HCCL (hccl_group.cc, groupLaunch): an
// event that torch_npu recorded behind such a call is complete before the collective has begun, and
// only this wait makes its result safe to read. A stream that is being captured is not waited for.
#include <functional>
#include <set>
#include <vector>

#include "acl/acl_mdl.h"
#include "communicator.h"

namespace standin {
namespace {

thread_local int open_groups = 0;
thread_local std::vector<std::function<HcclResult()>> launches;
thread_local std::set<aclrtStream> streams;

bool Capturing(aclrtStream stream) {
    aclmdlRICaptureStatus status = ACL_MODEL_RI_CAPTURE_STATUS_NONE;
    aclmdlRICaptureGetInfo(stream, &status, nullptr);
    return status != ACL_MODEL_RI_CAPTURE_STATUS_NONE;
}

}  // namespace

bool InCallGroup() { return open_groups > 0; }

void OpenCallGroup() { ++open_groups; }

HcclResult LaunchCollective(aclrtStream stream, std::function<HcclResult()> launch) {
    if (!InCallGroup()) return launch();
    launches.push_back(std::move(launch));
    streams.insert(stream);
    return HCCL_SUCCESS;
}

// What fails on a stream is told by whoever synchronises that next.
HcclResult CloseCallGroup() {
    if (open_groups == 0 || --open_groups > 0) return HCCL_SUCCESS;
    HcclResult first = SubmitCollectedMessages();
    for (const auto& launch : launches) {
        const HcclResult result = launch();
        if (first == HCCL_SUCCESS) first = result;
    }
    for (aclrtStream stream : streams) {
        if (!Capturing(stream)) aclrtSynchronizeStream(stream);
    }
    launches.clear();
    streams.clear();
    return first;
}

}  // namespace standin
