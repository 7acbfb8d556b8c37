// Ours or stock, when a group is opened: what this rank says, and what follows from what all say.
// agreement.h has the idea.
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "cann/version.h"
#include "device/mesh/abi.h"
#include "group.h"
#include "moe_limits.h"
#include "report.h"
#include "runtime.h"
#include "servers.h"
#include "settings.h"
#include "stock.h"
#include "tuning.h"

namespace ascend_moe {
namespace {

// Where the ranks of a group stand.
struct Place {
    // All ranks know these without asking each other.
    std::string foreign = {};  // not empty: not where our kernels run; CANN's have to
    std::string astray = {};   // not empty: CANN's kernels do not reach all ranks; their servers
    Form form = Form::kWindows;
    uint32_t per_server = 0;  // ranks; 0 by windows alone
    // What this rank sees and others may not; empty: they serve it.
    std::string unfit = {};
};

// Whether CANN's kernels for A2 take a group of `ranks` for one server, whatever HCCL says: since
// 9.0 they decide by the number alone and then write to the addresses of HCCS (ops-transformer
// 3a280bcc, mc2/moe_distribute_dispatch_v2/op_kernel/arch22/moe_distribute_dispatch_a2.h:267 and
// mc2/moe_distribute_combine_v2/op_kernel/arch22/moe_distribute_combine_a2.h:239; v9.0.0 :257,
// :248; in v8.5.0 all rows take RDMA). Between servers there are none.
bool TakenForOneServer(int64_t ranks) {
    return ranks <= limits::kRanksPerServer && cann::HcclVersion().rfind("8.", 0) != 0;
}

// Whether rank r is number r mod `whole` of server r / `whole`.
bool InOrder(const Servers& servers, uint32_t whole) {
    const uint32_t first = servers.here.front();
    return servers.here.size() == whole && servers.here.back() - first + 1 == whole &&
           first % whole == 0 &&
           std::all_of(servers.sizes.begin(), servers.sizes.end(),
                       [whole](uint32_t size) { return size == whole; });
}

// Of several servers, or of one on A3. What would keep queues from being found is asked before
// anybody waits for links, in full mesh also before there is no way back.
Place OnHierarchy(const Servers& servers, const World& world) {
    const uint32_t whole = static_cast<uint32_t>(world.path->ranks_per_server);
    Place place{"", "", Form::kHierarchy, whole, servers.one() ? "" : WhyNoQueues()};
    if (servers.sizes.size() > kMaxServers || !InOrder(servers, whole))
        place.unfit = "hierarchy needs whole servers of " + std::to_string(whole) +
                      " ranks in the order of the ranks, " + std::to_string(kMaxServers) +
                      " at most; the group is on " + servers.Text();
    return place;
}

Place OnMesh(const Servers& servers, const World& world) {
    const uint32_t whole = static_cast<uint32_t>(servers.here.size());
    Place place{"", "", Form::kMesh, whole, WhyNoQueues()};
    if (world.ranks > kMeshRanks || !InOrder(servers, whole))
        place.unfit =
            "full mesh over servers needs equally many ranks on each, in the order of "
            "the ranks, " +
            std::to_string(kMeshRanks) + " in all at most; the group is on " + servers.Text();
    return place;
}

Place PlaceOnA2(const std::string& group, const World& world) {
    Servers servers;
    if (FindServers(group, &servers) != ACL_SUCCESS) return {TakeText()};
    if (!servers.known)
        return {"on A2 they need to know the servers, and HCCL does not say where the ranks are: " +
                servers.unknown};
    if (servers.one() && world.hierarchy())
        return {"hierarchy is for several servers, the group is on " + servers.Text()};
    if (servers.one()) return {};
    Place place = world.hierarchy() ? OnHierarchy(servers, world) : OnMesh(servers, world);
    if (TakenForOneServer(world.ranks)) place.astray = servers.Ranks();
    return place;
}

Place PlaceOfHierarchyOnA3(const std::string& group, const World& world) {
    Servers servers;
    if (FindServers(group, &servers) != ACL_SUCCESS) return {TakeText()};
    if (!servers.known)
        return {"hierarchy needs to know the servers, and HCCL does not say: " + servers.unknown};
    return OnHierarchy(servers, world);
}

Place PlaceOf(const std::string& group, const World& world) {
    if (world.a2) return PlaceOnA2(group, world);
    const bool a3 = strncmp(aclrtGetSocName(), "Ascend910_93", strlen("Ascend910_93")) == 0;
    if (a3) return world.hierarchy() ? PlaceOfHierarchyOnA3(group, world) : Place{};
    return {std::string("they are written for A2 and A3, this is ") + aclrtGetSocName()};
}

std::string HostName() {
    char name[65] = {};
    return gethostname(name, sizeof(name) - 1) == 0 ? name : "an unknown host";
}

// Empty when our kernels can serve the group where it has windows.
std::string WhyNotOurs(const World& world, const Place& place, const Attributes& attributes) {
    if (!place.unfit.empty()) return place.unfit;
    if (world.a2 && attributes.tp_world_size == 2) return "they have no TP on A2";
    if (world.ranks > kMaxRanks)
        return "they know " + std::to_string(kMaxRanks) + " ranks at most, ep_world_size is " +
               std::to_string(world.ranks);
    return "";
}

// The text of a failure as the other ranks need it: without the names of operator and group, and
// without the advice, which is for the one whose call has failed.
std::string Reason(std::string text, const char* op, const std::string& group) {
    for (const std::string& known : {std::string(op) + ": ", "group_ep " + group + ": "}) {
        if (text.rfind(known, 0) == 0) text = text.substr(known.size());
    }
    return text.substr(0, text.find(". Needed is "));
}

uint32_t Random() {
    uint32_t number = 0;
    return getrandom(&number, sizeof(number), 0) == sizeof(number) ? number : 0;
}

}  // namespace

int Group::Open(const char* op, const Attributes& attributes, const Exchange& exchange) {
    const World world = World::Of(attributes);
    std::string problem;
    const Kernels kernels = ChosenKernels(&problem);
    const bool require = kernels == Kernels::kRequire;
    if (problem.empty() && kernels != Kernels::kOff) problem = TuningProblem();
    const Place place = PlaceOf(name, world);
    if (!place.foreign.empty() && !problem.empty())
        return Fail(kBadParameter, "%s: %s", op, problem.c_str());
    if (!place.foreign.empty())
        return OpenStock(op, attributes,
                         {Verdict::kStock, place.foreign, require ? "this rank" : ""});

    form_ = place.form;
    per_server_ = place.per_server;
    Verdict verdict = problem.empty() ? Verdict::kOurs : Verdict::kNeither;
    std::string why = problem;
    int own_status = kBadParameter;  // with `problem`, where this rank says neither
    if (verdict == Verdict::kOurs) {
        why = kernels == Kernels::kOff ? "ASCEND_MOE_KERNELS=off"
                                       : WhyNotOurs(world, place, attributes);
        if (!why.empty()) verdict = Verdict::kStock;
    }
    // Before anything that waits for other ranks, as it shows whether this thread may wait at all.
    int status = TakeMemory(op);
    if (status == kTryEagerFirst) return status;
    if (status != ACL_SUCCESS && verdict == Verdict::kOurs) {
        verdict = Verdict::kStock;
        why = TakeText();
    }
    if (!place.astray.empty() && verdict == Verdict::kStock && kernels != Kernels::kOff) {
        verdict = Verdict::kNeither;
        why += " (host " + HostName() + ")";
    }
    // Whoever leaves round 1 knows that nothing older runs on any rank, above all no collective
    // that still uses the buffer of the group. Errors are the business of those whose work it is.
    WaitForDevice();
    Decision decision;
    status =
        AgreeWithAll(op, Say(1, verdict, require, why), OpenTimeoutSeconds(), exchange, &decision);
    if (status == ACL_SUCCESS && !place.astray.empty() && decision.verdict != Verdict::kOurs &&
        problem.empty())
        return OpenAstray(op, attributes, place.astray, decision);
    const char* advice = "";
    if (status == ACL_SUCCESS && decision.verdict == Verdict::kOurs) {
        const bool no_way_back = form_ == Form::kMesh;
        if (no_way_back)
            advice =
                ". CANN's own kernels cannot take over, they want other links than these "
                "ranks have now: ASCEND_MOE_KERNELS=off on all ranks runs them from the start";
        if (FindAllWindows(world.ranks) != ACL_SUCCESS) {
            own_status = kInnerError;
            verdict = no_way_back ? Verdict::kNeither : Verdict::kStock;
        } else {
            own_status = CheckWindows(op, attributes);
            if (own_status != ACL_SUCCESS) verdict = Verdict::kNeither;
        }
        if (verdict != Verdict::kOurs) {
            const std::string text = TakeText();
            problem = why = Reason(text, op, name);
            Log(ACL_WARNING, "%s", text.c_str());
        }
        Word word = Say(2, verdict, require, why);
        if (verdict == Verdict::kOurs && form_ != Form::kWindows) {
            word.nonce = Random();
            word.window = static_cast<uint32_t>(ep_.bytes / kPitchBytes);
        }
        // The others may have waited for this one until HCCL gave up.
        status = AgreeWithAll(op, word, OpenTimeoutSeconds() + LinkTimeoutSeconds(), exchange,
                              &decision);
        nonce_ = decision.nonce;
    }
    if (status != ACL_SUCCESS) return status;
    if (decision.verdict == Verdict::kOurs) return OpenOurs(op, attributes);
    if (decision.verdict == Verdict::kStock) return OpenStock(op, attributes, decision);
    if (verdict == Verdict::kNeither)
        return Fail(own_status, "%s: %s%s", op, problem.c_str(), advice);
    return Fail(kInnerError, "%s: group_ep %s cannot be opened; %s%s", op, name.c_str(),
                decision.why.c_str(), advice);
}

int Group::AgreeWithAll(const char* op, Word own, int64_t limit_s, const Exchange& exchange,
                        Decision* decision) const {
    if (tp()) {
        Decision pair;
        const int status = Agree(op, "group_tp", tp_name, own, limit_s, exchange, &pair);
        if (status != ACL_SUCCESS) return status;
        if (own.verdict == Verdict::kOurs && pair.verdict != Verdict::kOurs)
            own = Say(own.round, pair.verdict, false, "in its TP pair " + pair.why);
        if (!pair.required.empty()) own.require = 1;
    }
    return Agree(op, "group_ep", name, own, limit_s, exchange, decision);
}

// On A2 servers that CANN's kernels would take for one, and not ours. If all have said `off` they
// get what they asked for.
int Group::OpenAstray(const char* op, const Attributes& attributes, const std::string& servers,
                      const Decision& decision) {
    const std::string text =
        "group_ep " + name + " of " + std::to_string(attributes.ep_world_size) + " ranks is on " +
        servers + ". CANN's kernels for A2 take up to " + std::to_string(limits::kRanksPerServer) +
        " ranks for one server and would write to addresses that no core reaches there; ours do "
        "not serve it: " +
        decision.why +
        ". Put all ranks of the group on one server, or equally many on each of several, in the "
        "order of the ranks";
    if (decision.wanted) {
        GiveMemoryBack();
        return Fail(kInnerError, "%s: %s", op, text.c_str());
    }
    Log(ACL_WARNING, "%s", text.c_str());
    if (attributes.ep_rank_id == 0) fprintf(stderr, "ascend-moe: warning: %s\n", text.c_str());
    return OpenStock(op, attributes, decision);
}

int Group::OpenStock(const char* op, const Attributes& attributes, const Decision& decision) {
    GiveMemoryBack();
    ep_ = tp_ = {};
    if (!decision.required.empty()) {
        return Fail(kInnerError,
                    "%s: ASCEND_MOE_KERNELS=require (%s), but our kernels cannot serve group_ep "
                    "%s: %s",
                    op, decision.required.c_str(), name.c_str(), decision.why.c_str());
    }
    const std::string stock = StockLibrary(DispatchCall::kAclnn);
    if (stock.empty()) {
        return Fail(kInnerError,
                    "%s: our kernels do not serve group_ep %s (%s), and CANN's own "
                    "operator was not found in any library that torch_npu would search",
                    op, name.c_str(), decision.why.c_str());
    }
    // What was tried in vain is no part of the next error that somebody reports.
    RuntimeText();
    TakeLastError();
    Announce(attributes, "stock", decision.why + "; " + stock);
    return ACL_SUCCESS;
}

// One line per group: in CANN's log on every rank, and where people look on rank 0.
void Group::Announce(const Attributes& attributes, const char* whose, const std::string& more) {
    const std::string line =
        "group " + attributes.group_ep + ": kernels=" + whose + " (" + more + ")";
    Log(ACL_INFO, "%s", line.c_str());
    if (attributes.ep_rank_id == 0) fprintf(stderr, "ascend-moe: %s\n", line.c_str());
}

int Group::FindAllWindows(int64_t ranks) {
    const OwnStream stream;
    if (form_ != Form::kWindows && ranks > per_server_)
        return FindWindowsAndQueues(name, stream.get(), &ep_);
    const int status = FindWindows(name, stream.get(), &ep_);
    return status == ACL_SUCCESS && tp() ? FindWindows(tp_name, stream.get(), &tp_) : status;
}

}  // namespace ascend_moe
