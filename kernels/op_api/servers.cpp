// See servers.h.
#include "servers.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "agreement.h"
#include "cann/symbols.h"
#include "report.h"
#include "windows.h"

namespace ascend_moe {
namespace {

using cann::Cann;
using cann::HcclComm;

// A list that HCCL keeps.
using Question = cann::Symbol<cann::HcclResult(HcclComm, uint32_t, uint32_t**, uint32_t*)>;

int Ask(const std::string& group, HcclComm comm, const Question& question, uint32_t layer,
        std::vector<uint32_t>* answer) {
    uint32_t* list = nullptr;
    uint32_t count = 0;
    const cann::HcclResult result = question(comm, layer, &list, &count);
    if (result != cann::kHcclSuccess || (count > 0 && list == nullptr) || count == 0)
        return Fail(kInnerError, "group_ep %s: %s for layer %u returned %d and %u entries",
                    group.c_str(), question.name, layer, result, count);
    answer->assign(list, list + count);
    return ACL_SUCCESS;
}

std::string Listed(const std::vector<uint32_t>& numbers) {
    std::string text;
    for (size_t i = 0; i < numbers.size(); ++i) {
        const char* between = i == 0 ? "" : i + 1 == numbers.size() ? " and " : ", ";
        text += between + std::to_string(numbers[i]);
    }
    return text;
}

}  // namespace

bool Servers::apart() const {
    return known && reach.size() < std::accumulate(sizes.begin(), sizes.end(), size_t{0});
}

std::string Servers::Text() const {
    return std::to_string(sizes.size()) + (sizes.size() == 1 ? " server, of " : " servers, of ") +
           Listed(sizes) + " ranks; in this one " + Names(here);
}

int FindServers(const std::string& group, Servers* found) {
    *found = {};
    const cann::Symbols& c = Cann();
    if (!cann::Missing(c.HcclRankGraphGetLayers, c.HcclRankGraphGetRanksByLayer,
                       c.HcclRankGraphGetInstSizeListByLayer)
             .empty())
        return ACL_SUCCESS;
    const HcclComm comm = const_cast<void*>(CommunicatorOf(group));
    if (comm == nullptr) return ACL_SUCCESS;  // whoever is asked next says so by name
    uint32_t* layers = nullptr;
    uint32_t count = 0;
    const cann::HcclResult result = c.HcclRankGraphGetLayers(comm, &layers, &count);
    if (result == cann::kHcclNotSupport || result == cann::kHcclNotThere) return ACL_SUCCESS;
    if (result != cann::kHcclSuccess || layers == nullptr || count == 0)
        return Fail(kInnerError, "group_ep %s: HcclRankGraphGetLayers returned %d and %u layers",
                    group.c_str(), result, count);
    const bool a2 = strncmp(aclrtGetSocName(), "Ascend910B", strlen("Ascend910B")) == 0;
    // On A3 layer 1, where there is one, is the super-pod.
    const uint32_t reached = a2 || count == 1 ? 0 : 1;
    int status = Ask(group, comm, c.HcclRankGraphGetRanksByLayer, 0, &found->here);
    if (status == ACL_SUCCESS)
        status = Ask(group, comm, c.HcclRankGraphGetInstSizeListByLayer, 0, &found->sizes);
    if (status == ACL_SUCCESS)
        status = Ask(group, comm, c.HcclRankGraphGetRanksByLayer, reached, &found->reach);
    if (status != ACL_SUCCESS) return status;
    std::sort(found->here.begin(), found->here.end());
    std::sort(found->reach.begin(), found->reach.end());
    found->known = true;
    return ACL_SUCCESS;
}

}  // namespace ascend_moe
