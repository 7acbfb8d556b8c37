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

// On A2 layer 1, which is there when there are several servers, has the ranks of all, server by
// server in the order of the sizes (hcomm:src/framework/communicator/impl/independent_op/
// rank_graph/rank_graph.cc:654-672, v9.0.0; the same in v8.5.0 at :575-594 and v9.1.0-beta.1). The
// part of this server must be what layer 0 says.
int ListRanks(const std::string& group, HcclComm comm, Servers* found) {
    std::vector<uint32_t> all = found->here;
    int status = ACL_SUCCESS;
    if (found->sizes.size() > 1)
        status = Ask(group, comm, Cann().HcclRankGraphGetRanksByLayer, 1, &all);
    if (status != ACL_SUCCESS) return status;
    size_t at = 0;
    bool agrees = false;
    for (uint32_t size : found->sizes) {
        const size_t end = at + size;
        if (end > all.size()) break;
        found->ranks.emplace_back(all.begin() + at, all.begin() + end);
        agrees = agrees || found->ranks.back() == found->here;
        at = end;
    }
    if (agrees && at == all.size() && found->ranks.size() == found->sizes.size())
        return ACL_SUCCESS;
    return Fail(kInnerError,
                "group_ep %s: the rank graph of HCCL contradicts itself: servers of %s ranks, %zu "
                "ranks in all, in this one %s",
                group.c_str(), Listed(found->sizes).c_str(), all.size(),
                Names(found->here).c_str());
}

}  // namespace

bool Servers::apart() const {
    return known && reach.size() < std::accumulate(sizes.begin(), sizes.end(), size_t{0});
}

std::string Servers::Text() const {
    return std::to_string(sizes.size()) + (sizes.size() == 1 ? " server, of " : " servers, of ") +
           Listed(sizes) + " ranks; in this one " + Names(here);
}

std::string Servers::Ranks() const {
    std::string text = std::to_string(ranks.size()) + (ranks.size() == 1 ? " server" : " servers");
    for (size_t i = 0; i < ranks.size(); ++i)
        text += (i == 0 ? ": " : "; ") + Names(ranks[i]) + (i == 0 ? " on one" : " on another");
    return text;
}

int FindServers(const std::string& group, Servers* found) {
    *found = {};
    const cann::Symbols& c = Cann();
    found->unknown = cann::Missing(c.HcclRankGraphGetLayers, c.HcclRankGraphGetRanksByLayer,
                                   c.HcclRankGraphGetInstSizeListByLayer);
    if (!found->unknown.empty()) {
        found->unknown = "CANN has no " + found->unknown;
        return ACL_SUCCESS;
    }
    const HcclComm comm = const_cast<void*>(CommunicatorOf(group));
    if (comm == nullptr) return ACL_SUCCESS;  // whoever is asked next says so by name
    uint32_t* layers = nullptr;
    uint32_t count = 0;
    const cann::HcclResult result = c.HcclRankGraphGetLayers(comm, &layers, &count);
    if (result == cann::kHcclNotSupport || result == cann::kHcclNotThere) {
        found->unknown = "HcclRankGraphGetLayers returned " + std::to_string(result);
        return ACL_SUCCESS;
    }
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
    if (a2) status = ListRanks(group, comm, found);
    if (status != ACL_SUCCESS) return status;
    std::sort(found->here.begin(), found->here.end());
    std::sort(found->reach.begin(), found->reach.end());
    found->known = true;
    return ACL_SUCCESS;
}

}  // namespace ascend_moe
