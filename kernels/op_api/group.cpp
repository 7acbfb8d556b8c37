// See group.h.
#include "group.h"

#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>

#include "error_record.h"
#include "report.h"
#include "runtime.h"
#include "settings.h"
#include "stock.h"

namespace ascend_moe {
namespace {

struct Registry {
    std::mutex mutex;
    std::map<std::pair<int32_t, std::string>, std::shared_ptr<Group>> groups;
};

// Leaked: torch_npu's threads may still call while static objects are destroyed.
Registry& Groups() {
    static Registry* registry = new Registry();
    return *registry;
}

// Contexts of communicators that are no more. HCCL destroys one when its kernels have ended.
void ForgetDestroyed(Registry& registry) {
    for (auto entry = registry.groups.begin(); entry != registry.groups.end();) {
        const Group& group = *entry->second;
        const bool gone =
            group.ours() && CommunicatorOf(group.name) != group.ep_windows().communicator;
        entry = gone ? registry.groups.erase(entry) : std::next(entry);
    }
}

int64_t Milliseconds() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

}  // namespace

Group::~Group() {
    if (context_ != 0) aclrtFree(reinterpret_cast<void*>(context_));
}

int Group::Of(const char* op, const Attributes& attributes, std::shared_ptr<Group>* group) {
    int32_t device = 0;
    if (aclrtGetDevice(&device) != ACL_SUCCESS)
        return Fail(kBadParameter, "%s: this thread has no device", op);
    const bool tp = attributes.tp_world_size == 2;
    {
        Registry& registry = Groups();
        std::lock_guard<std::mutex> lock(registry.mutex);
        std::shared_ptr<Group>& found = registry.groups[{device, attributes.group_ep}];
        // The communicator of that name may have been destroyed and made again.
        if (found != nullptr && found->ours_ &&
            CommunicatorOf(found->name) != found->ep_.communicator)
            found = nullptr;
        if (found == nullptr) {
            found = std::make_shared<Group>(attributes.group_ep, tp ? attributes.group_tp : "");
            *group = found;
            ForgetDestroyed(registry);
        } else {
            *group = found;
        }
    }
    const int status = (*group)->OpenOnce(op, attributes);
    if (status != ACL_SUCCESS || !(*group)->ours_ || (*group)->tp() == tp) return status;
    return Fail(kInnerError,
                "%s: tp_world_size=%ld, but group_ep %s runs our kernels %s TP since its first "
                "call; use one group for each",
                op, attributes.tp_world_size, attributes.group_ep.c_str(),
                (*group)->tp() ? "with" : "without");
}

int Group::OpenOnce(const char* op, const Attributes& attributes) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (opened_) return status_ == ACL_SUCCESS ? status_ : Fail(status_, "%s", problem_.c_str());
    const int status = Open(op, attributes);
    if (status == kTryEagerFirst) {
        return Fail(kInnerError,
                    "%s: group_ep %s has not been used yet and cannot be opened while a stream is "
                    "being captured into a graph: run one eager call first",
                    op, name.c_str());
    }
    opened_ = true;
    status_ = status;
    if (status == ACL_SUCCESS) return status;
    problem_ = TakeText();
    return Fail(status, "%s", problem_.c_str());
}

int Group::Open(const char* op, const Attributes& attributes) {
    std::string problem;
    const Kernels kernels = ChosenKernels(&problem);
    if (!problem.empty()) return Fail(kBadParameter, "%s: %s", op, problem.c_str());
    std::string why = kernels == Kernels::kOff ? "ASCEND_MOE_KERNELS=off" : WhyNotOurs(attributes);
    if (why.empty()) {
        int status = TakeMemory(op);  // before anything that waits for other ranks
        if (status == ACL_SUCCESS) status = FindAllWindows();
        if (status == ACL_SUCCESS) return OpenOurs(op, attributes);
        if (status != kNoWindows) return status;
        why = TakeText();
    }
    if (kernels == Kernels::kRequire) {
        return Fail(kInnerError,
                    "%s: ASCEND_MOE_KERNELS=require, but our kernels cannot serve group_ep %s: %s",
                    op, attributes.group_ep.c_str(), why.c_str());
    }
    const std::string stock = StockLibrary(DispatchCall::kAclnn);
    if (stock.empty()) {
        return Fail(kInnerError,
                    "%s: our kernels do not serve group_ep %s (%s), and CANN's own "
                    "operator was not found in any library that torch_npu would search",
                    op, attributes.group_ep.c_str(), why.c_str());
    }
    Announce(attributes, "stock", why + "; " + stock);
    return ACL_SUCCESS;
}

// One line per group: in CANN's log on every rank, and where people look on rank 0.
void Group::Announce(const Attributes& attributes, const char* whose, const std::string& more) {
    const std::string line =
        "group " + attributes.group_ep + ": kernels=" + whose + " (" + more + ")";
    Log(ACL_INFO, "%s", line.c_str());
    if (attributes.ep_rank_id == 0) fprintf(stderr, "ascend-moe: %s\n", line.c_str());
}

std::string Group::WhyNotOurs(const Attributes& attributes) {
    const World world = World::Of(attributes);
    if (world.a2) return "they are written for A3, this is A2";
    if (world.hierarchy()) return "they have no comm_alg hierarchy";
    if (strncmp(aclrtGetSocName(), "Ascend910_93", strlen("Ascend910_93")) != 0)
        return std::string("they are written for A3, this is ") + aclrtGetSocName();
    return "";
}

int Group::FindAllWindows() {
    const OwnStream stream;
    const int status = FindWindows(name, stream.get(), &ep_);
    return status == ACL_SUCCESS && tp() ? FindWindows(tp_name, stream.get(), &tp_) : status;
}

std::string Group::Failure() {
    constexpr int64_t kLookEveryMs = 1000;
    std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_.empty() || Milliseconds() - looked_at_ < kLookEveryMs) return failure_;
    looked_at_ = Milliseconds();
    std::vector<uint32_t> records(kErrorWords);
    const BesideCapture beside;
    if (CopyFromDevice(records.data(), ep_.control[ep_rank_] + kErrorOffset,
                       records.size() * sizeof(uint32_t)) == ACL_SUCCESS) {
        failure_ = Failure(records.data());
    }
    return failure_;
}

std::string Group::Failure(const uint32_t* records) const {
    for (uint32_t core = 0; core < kMaxCores; ++core) {
        const uint32_t* record = records + core * kBlockWords;
        if (record[0] != nonce_) continue;
        const GaveUp event{name, ep_rank_, record};
        std::call_once(remembered_, [&event] { Remember(event); });
        return Text(event);
    }
    return "";
}

}  // namespace ascend_moe
