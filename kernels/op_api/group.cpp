// See group.h.
#include "group.h"

#include <chrono>
#include <map>

#include "error_record.h"
#include "report.h"
#include "runtime.h"

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

// Contexts of communicators that are no more. HCCL destroys one when its kernels have ended. It
// knows the communicators of this thread's device alone, and so do we.
void ForgetDestroyed(Registry& registry, int32_t device) {
    for (auto entry = registry.groups.begin(); entry != registry.groups.end();) {
        if (entry->first.first != device) {
            ++entry;
            continue;
        }
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

const char* NameOf(Form form) { return form == Form::kHierarchy ? "hierarchy" : "full mesh"; }

Group::~Group() { GiveMemoryBack(); }

Topology Group::topology() const {
    const uint32_t per_server = per_server_ == 0 ? ep_.ranks : per_server_;
    return {ep_.ranks / per_server, per_server, ep_rank_ / per_server, ep_rank_ % per_server};
}

std::shared_ptr<Group> Group::Find(int32_t device, const Attributes& attributes) {
    Registry& registry = Groups();
    std::lock_guard<std::mutex> lock(registry.mutex);
    std::shared_ptr<Group>& found = registry.groups[{device, attributes.group_ep}];
    // The communicator of that name may have been destroyed and made again.
    if (found != nullptr && found->ours_ && CommunicatorOf(found->name) != found->ep_.communicator)
        found = nullptr;
    if (found != nullptr) return found;
    const bool tp = attributes.tp_world_size == 2;
    found = std::make_shared<Group>(attributes.group_ep, tp ? attributes.group_tp : "");
    const std::shared_ptr<Group> made = found;
    ForgetDestroyed(registry, device);
    return made;
}

std::shared_ptr<Group> Group::Known(const std::string& name) {
    int32_t device = 0;
    if (aclrtGetDevice(&device) != ACL_SUCCESS) return nullptr;
    Registry& registry = Groups();
    std::lock_guard<std::mutex> lock(registry.mutex);
    const auto found = registry.groups.find({device, name});
    return found == registry.groups.end() ? nullptr : found->second;
}

int Group::Of(const char* op, const Attributes& attributes, std::shared_ptr<Group>* group) {
    int32_t device = 0;
    if (aclrtGetDevice(&device) != ACL_SUCCESS)
        return Fail(kBadParameter, "%s: this thread has no device", op);
    *group = Find(device, attributes);
    const bool tp = attributes.tp_world_size == 2;
    const int status = (*group)->OpenOnce(op, attributes, ThroughHccl);
    if (status != ACL_SUCCESS || !(*group)->ours_ || (*group)->tp() == tp) return status;
    return Fail(kInnerError,
                "%s: tp_world_size=%ld, but group_ep %s runs our kernels %s TP since its first "
                "call; use one group for each",
                op, attributes.tp_world_size, attributes.group_ep.c_str(),
                (*group)->tp() ? "with" : "without");
}

bool Group::Decide(const char* op, const Attributes& attributes, const Exchange& exchange) {
    int32_t device = 0;
    if (aclrtGetDevice(&device) != ACL_SUCCESS) return false;
    const std::shared_ptr<Group> group = Find(device, attributes);
    group->OpenOnce(op, attributes, exchange);
    std::lock_guard<std::mutex> lock(group->mutex_);
    return group->opened_;
}

int Group::OpenOnce(const char* op, const Attributes& attributes, const Exchange& exchange) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (opened_) return status_ == ACL_SUCCESS ? status_ : Fail(status_, "%s", problem_.c_str());
    const int status = Open(op, attributes, exchange);
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
    TakeLastError();  // torch_npu would report it in the place of this one
    return Fail(status, "%s", problem_.c_str());
}

std::string Group::Failure() {
    constexpr int64_t kLookEveryMs = 1000;
    std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_.empty() || Milliseconds() - looked_at_ < kLookEveryMs) return failure_;
    return Look();
}

std::string Group::Look() {
    looked_at_ = Milliseconds();
    std::vector<uint32_t> control(kWatchedWords);
    const BesideCapture beside;
    if (CopyFromDevice(control.data(), ep_.control[ep_rank_], control.size() * sizeof(uint32_t)) !=
        ACL_SUCCESS) {
        return failure_;
    }
    return Look(control.data());
}

std::string Group::Look(const uint32_t* control) {
    if (failure_.empty()) failure_ = Failure(control);
    // No launch has noticed yet, and perhaps none can: a communicator that was destroyed and made
    // again under the same name and at the same address has another buffer.
    if (failure_.empty() && control[kStateNonce] != nonce_) {
        uint32_t record[kBlockWords] = {nonce_};
        record[kErrorPeer] = ep_rank_ + 1;
        record[kErrorOp] = kLastNone;
        record[kErrorReason] = kForeignUse;
        failure_ = Text({name, ep_rank_, record, timeout_s_});
    }
    const std::string retired = failure_.empty() ? OfRetired(control) : "";
    if (retired.empty()) return failure_;
    const uint32_t told[kBlockWords] = {};
    CopyToDevice(ep_.control[ep_rank_] + kRetiredOffset, told, sizeof(told));
    return retired;
}

std::string Group::Failure(const uint32_t* control) const {
    for (uint32_t core = 0; core < kMaxCores; ++core) {
        const uint32_t* record = control + kErrorOffset / sizeof(uint32_t) + core * kBlockWords;
        if (record[0] != nonce_) continue;
        const GaveUp event{name, ep_rank_, record, timeout_s_};
        std::call_once(*remembered_, [&event] { Remember(event); });
        return Text(event);
    }
    const uint32_t* left_out = control + kLeftOutOffset / sizeof(uint32_t);
    return left_out[0] == nonce_ ? TextOfLeftOut(name, ep_rank_, left_out[1] - 1) : "";
}

}  // namespace ascend_moe
