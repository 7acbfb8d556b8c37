// Opening a group for our kernels: windows, the meeting, the context in device memory, the kernel
// that clears the control area. docs/kernels.md section 4, point 5.
#include <sys/random.h>

#include <algorithm>

#include "group.h"
#include "launch.h"
#include "report.h"
#include "runtime.h"
#include "settings.h"
#include "tuning.h"

namespace ascend_moe {
namespace {

constexpr int64_t kTicksPerSecond = int64_t{1'000'000} * kTicksPerMicrosecond;

// In units of 1024 ticks.
uint32_t Ticks(int64_t milliseconds) {
    const int64_t units = milliseconds * (kTicksPerSecond / 1000) / 1024;
    return static_cast<uint32_t>(std::min<int64_t>(units, UINT32_MAX));
}

// The random numbers of all ranks, as a meeting has left them.
std::vector<uint32_t> NoncesIn(const std::vector<uint32_t>& blocks) {
    std::vector<uint32_t> nonces;
    for (size_t block = 0; block < blocks.size(); block += kBlockWords) {
        const auto first = blocks.begin() + block + kMeetNonce;
        nonces.insert(nonces.end(), first, first + 2);
    }
    return nonces;
}

}  // namespace

int Group::TakeMemory(const char* op) {
    void* memory = nullptr;
    int status = aclrtMalloc(&memory, sizeof(HierarchyContext), ACL_MEM_MALLOC_HUGE_FIRST);
    context_ = reinterpret_cast<uint64_t>(memory);
    const std::vector<char> zeros(sizeof(HierarchyContext));
    if (status == ACL_SUCCESS) status = CopyToDevice(context_, zeros.data(), zeros.size());
    if (status == ACL_SUCCESS) return ACL_SUCCESS;
    GiveMemoryBack();
    if (RefusedByCapture(status)) return kTryEagerFirst;
    return Fail(status, "%s: no device memory for the context of group_ep %s", op, name.c_str());
}

void Group::GiveMemoryBack() {
    if (context_ != 0) aclrtFree(reinterpret_cast<void*>(context_));
    for (uint64_t context : retired_) aclrtFree(reinterpret_cast<void*>(context));
    context_ = 0;
    retired_.clear();
}

int Group::OpenOurs(const char* op, const Attributes& attributes) {
    ep_rank_ = static_cast<uint32_t>(attributes.ep_rank_id);
    tp_rank_ = static_cast<uint32_t>(attributes.tp_rank_id);
    int status = ACL_SUCCESS;
    const bool servers = form_ != Form::kWindows;  // whose ranks have their nonce already
    if (!servers) status = Meet(op, ep_, ep_rank_, "group_ep", &nonce_);
    if (status == ACL_SUCCESS && tp()) status = Meet(op, tp_, tp_rank_, "group_tp", &tp_nonce_);
    if (status == ACL_SUCCESS) status = WriteContext(op, ep_, ep_rank_);
    if (status != ACL_SUCCESS) return status;
    first_nonce_ = nonce_;
    constexpr Kernel kOpening[] = {Kernel::kOpen, Kernel::kHierarchyOpen, Kernel::kMeshOpen};
    status = RunAlone(kOpening[static_cast<int>(form_)], Meeting{}, 1000 * OpenTimeoutSeconds());
    if (status != ACL_SUCCESS) return status;
    const std::string failure = Look();
    if (!failure.empty()) return Fail(kInnerError, "%s: %s", op, failure.c_str());
    timeout_s_ = KernelTimeoutSeconds();
    timeout_ticks_ = Ticks(1000 * timeout_s_);
    ours_ = true;
    Announce(attributes, "ours",
             "ABI " + std::to_string(kAbiVersion) + ", " + std::to_string(ep_.ranks) + " ranks" +
                 (servers ? " on " + std::to_string(topology().servers) + " servers" : "") +
                 ", windows of " + std::to_string(ep_.bytes >> 20) + " MB through " + ep_.provider +
                 (TuningFile().empty() ? "" : ", cores by " + TuningFile()));
    return ACL_SUCCESS;
}

int Group::OpenForProbe(const Windows& windows, uint32_t nonce) {
    constexpr const char* kOp = "npu_check";
    ep_ = windows;
    ep_.control = ep_.base;
    ep_rank_ = windows.rank;
    nonce_ = nonce;
    timeout_s_ = KernelTimeoutSeconds();
    timeout_ticks_ = Ticks(1000 * timeout_s_);
    const int status = TakeMemory(kOp);
    return status == ACL_SUCCESS ? WriteContext(kOp, ep_, ep_rank_) : status;
}

int Group::CheckWindows(const char* op, const Attributes& a) {
    const struct {
        const char* parameter;
        const std::string& group;
        Windows& windows;
        int64_t size, rank;
    } groups[] = {{"group_ep", name, ep_, a.ep_world_size, a.ep_rank_id},
                  {"group_tp", tp_name, tp_, 2, a.tp_rank_id}};
    for (size_t i = 0; i < (tp() ? 2 : 1); ++i) {
        const auto& [parameter, group, windows, size, rank] = groups[i];
        const Membership membership{windows.ranks, windows.rank};
        const int status = CheckGroup(op, parameter, group, size, rank, &membership);
        if (status != ACL_SUCCESS) return status;
        if (windows.control.empty()) windows.control = windows.base;
    }
    return ACL_SUCCESS;
}

int Group::RunAlone(Kernel kernel, Meeting meeting, int64_t limit_ms) {
    limit_ms = std::min(limit_ms, 1000 * KernelLimitSeconds());
    timeout_s_ = limit_ms / 1000;
    meeting.timeout_ticks = std::max(Ticks(limit_ms), 1u);  // 0 would be no limit
    Launch launch{kernel,
                  GrantedCores(),
                  {{"context", context_, sizeof(HierarchyContext)}},
                  {},
                  shared_from_this()};
    launch.Pass(meeting);
    return OwnStream().Run(launch);
}

int Group::Meet(const char* op, const Windows& windows, uint32_t rank, const char* parameter,
                uint32_t* nonce) {
    int status = WriteContext(op, windows, rank);
    if (status != ACL_SUCCESS) return status;
    Meeting meeting{};
    if (getrandom(meeting.nonce, sizeof(meeting.nonce), 0) != sizeof(meeting.nonce))
        return Fail(kInnerError, "%s: no random numbers", op);
    meeting.statement[0] = kAbiVersion << 8 | (tp() ? 1 : 0);
    meeting.statement[1] = static_cast<uint32_t>(ep_.bytes / kPitchBytes);
    meeting.statement[2] = static_cast<uint32_t>(tp_.bytes / kPitchBytes);
    status = RunAlone(Kernel::kMeet, meeting, 1000 * OpenTimeoutSeconds());
    if (status != ACL_SUCCESS) return status;
    std::vector<uint32_t> blocks(windows.ranks * kBlockWords);
    status = CopyFromDevice(blocks.data(), windows.control[rank] + kMeetOffset,
                            blocks.size() * sizeof(uint32_t));
    if (status != ACL_SUCCESS) return Fail(status, "%s: cannot read the own window", op);
    *nonce = NonceOf(NoncesIn(blocks));
    return Compare(op, parameter, meeting, blocks);
}

int Group::Compare(const char* op, const char* parameter, const Meeting& own,
                   const std::vector<uint32_t>& blocks) const {
    const std::string& group = parameter == std::string("group_ep") ? name : tp_name;
    std::vector<uint32_t> missing;
    for (uint32_t rank = 0; rank < blocks.size() / kBlockWords; ++rank) {
        const uint32_t* block = &blocks[rank * kBlockWords];
        if (block[kMeetTag] != kMeetMagic || block[kMeetEcho] != own.nonce[0] ||
            block[kMeetEcho + 1] != own.nonce[1]) {
            missing.push_back(rank);
        }
    }
    if (!missing.empty()) {
        return Fail(kInnerError,
                    "%s: %s of %s %s agreed to run our kernels but did not come to open the group "
                    "within %ld s. It has died, or hangs",
                    op, Names(missing).c_str(), parameter, group.c_str(), timeout_s_);
    }
    constexpr const char* kWhat[kStatementWords] = {
        "version of the library (with TP in the last bit)", "window of group_ep in 512 bytes",
        "window of group_tp in 512 bytes"};
    for (uint32_t word = 0; word < kStatementWords; ++word) {
        std::vector<uint32_t> others;
        for (uint32_t rank = 0; rank < blocks.size() / kBlockWords; ++rank) {
            if (blocks[rank * kBlockWords + kMeetStatement + word] != own.statement[word])
                others.push_back(rank);
        }
        if (others.empty()) continue;
        return Fail(kInnerError, "%s: ranks of %s %s differ: %s is %u here, %u on %s", op,
                    parameter, group.c_str(), kWhat[word], own.statement[word],
                    blocks[others[0] * kBlockWords + kMeetStatement + word], Names(others).c_str());
    }
    return ACL_SUCCESS;
}

// The context as a kernel wants it for `windows`: those of the group, or of the TP pair for their
// own meeting.
int Group::WriteContext(const char* op, const Windows& windows, uint32_t rank) {
    HierarchyContext whole{};
    Context& context = whole.group;
    context.magic = kContextMagic;
    context.version = kAbiVersion;
    context.ep_rank = rank;
    context.ep_size = windows.ranks;
    context.nonce = nonce_;
    context.tp_rank = tp_rank_;
    context.tp_size = tp() ? 2 : 1;
    context.tp_nonce = tp_nonce_;
    context.window_bytes = windows.bytes;
    context.own_window = windows.base[rank];
    context.own_control = windows.control[rank];
    context.scaled = shrunk();
    context.tp_window_bytes = tp_.bytes;
    std::copy(tp_.base.begin(), tp_.base.end(), context.tp_window);
    std::copy(windows.base.begin(), windows.base.end(), context.window);
    std::copy(windows.control.begin(), windows.control.end(), context.control);
    for (uint32_t other = 0; other < windows.ranks; ++other) {
        if (!IsLeft(other)) context.window[other] = context.control[other] = 0;
    }
    std::copy(elastic_.begin(), elastic_.end(), context.elastic);
    whole.ranks_per_server = per_server_;
    whole.sums_by_expert = World::OnA2();
    whole.output = windows.card.output;
    whole.queues = windows.card.queues;
    const int status = CopyToDevice(context_, &whole, sizeof(whole));
    return status == ACL_SUCCESS
               ? ACL_SUCCESS
               : Fail(status, "%s: cannot write the context of group_ep %s", op, name.c_str());
}

}  // namespace ascend_moe
