// See survivors.h.
#include "survivors.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>

#include "error_record.h"
#include "group.h"
#include "launch.h"
#include "report.h"
#include "runtime.h"
#include "settings.h"

namespace ascend_moe {
namespace {

constexpr const char* kWho = "ascend_moe.shrink";
constexpr int kUnknownGroup = 1, kSomebodyMissing = 2;

}  // namespace

void Group::Serves(const Attributes& attributes) {
    std::lock_guard<std::mutex> lock(mutex_);
    served_ = attributes;
}

void Group::Describe(ascend_moe_members* members) {
    std::lock_guard<std::mutex> lock(mutex_);
    *members = {};
    members->ours = ours_;
    if (!ours_) return;
    members->ranks = ep_.ranks;
    members->rank = ep_rank_;
    members->tp = tp();
    members->hierarchy = form_ == Form::kHierarchy;
    members->note_words = NotesFit(ep_.ranks) ? NoteWords(ep_.ranks) : 0;
    members->note_tag = first_nonce_;
    if (served_.moe_expert_num == 0) return;
    members->a2 = World::Of(served_).a2;
    members->moe_expert_num = served_.moe_expert_num;
    members->shared_expert_num = served_.shared_expert_num;
    members->shared_expert_rank_num = served_.shared_expert_rank_num;
}

int Group::Confirm(uint8_t* waited) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!ours_) return ACL_SUCCESS;
    std::vector<uint32_t> control(kWatchedWords);
    int status = ReadControl(&control);
    if (status != ACL_SUCCESS) return status;
    const std::string text = Look(control.data());
    if (text.empty()) return ACL_SUCCESS;
    WaitedFor(control.data(), waited);
    Fail(kInnerError, "%s", text.c_str());
    return kSomebodyMissing;
}

int Group::ReadControl(std::vector<uint32_t>* control) const {
    const int status =
        CopyFromDevice(control->data(), ep_.control[ep_rank_], control->size() * sizeof(uint32_t));
    return status == ACL_SUCCESS ? status : Fail(status, "%s: cannot read the own window", kWho);
}

bool Group::WaitedFor(const uint32_t* control, uint8_t* ranks) const {
    bool any = false;
    for (uint32_t core = 0; core < kMaxCores; ++core) {
        const uint32_t* record = control + kErrorOffset / sizeof(uint32_t) + core * kBlockWords;
        if (record[0] != nonce_) continue;
        any = true;
        if (record[kErrorReason] == kAbsent) ranks[record[kErrorPeer] - 1] = 1;
    }
    return any;
}

int Group::Tell(uint32_t offset, const std::vector<uint32_t>& words, const uint8_t* to) {
    Telling telling{};
    telling.offset = offset;
    telling.count = static_cast<uint32_t>(words.size());
    std::copy(words.begin(), words.end(), telling.words);
    for (uint32_t rank = 0; rank < ep_.ranks; ++rank) {
        if (to[rank] != 0) telling.to[rank / 32] |= 1u << rank % 32;
    }
    Launch launch{Kernel::kTell,
                  1,
                  {{"context", context_, sizeof(HierarchyContext)}},
                  {},
                  shared_from_this()};
    launch.Pass(telling);
    return OwnStream().Run(launch);
}

int Group::TellNote(const uint32_t* note, const uint8_t* to) {
    std::lock_guard<std::mutex> lock(mutex_);
    const uint32_t words = NoteWords(ep_.ranks);
    return Tell(kNotesOffset + ep_rank_ * words * sizeof(uint32_t), {note, note + words}, to);
}

int Group::Hear(uint32_t* notes, uint8_t* dead) {
    std::lock_guard<std::mutex> lock(mutex_);
    const BesideCapture beside;
    const size_t bytes = sizeof(uint32_t) * NoteWords(ep_.ranks) * ep_.ranks;
    const int status = CopyFromDevice(notes, ep_.control[ep_rank_] + kNotesOffset, bytes);
    if (status != ACL_SUCCESS) return Fail(status, "%s: cannot read the own window", kWho);
    for (uint32_t rank = 0; rank < ep_.ranks; ++rank) dead[rank] = ProcessEnded(name, rank);
    return ACL_SUCCESS;
}

int Group::Reopen(const int32_t* elastic_info, uint32_t nonce, int64_t limit_ms, uint8_t* missing) {
    std::lock_guard<std::mutex> lock(mutex_);
    WaitForDevice();  // what launches of before have ended in is known
    TakeLastError();
    const uint32_t words = ElasticWords(ep_.ranks);
    std::vector<uint8_t> left_out(ep_.ranks);
    for (uint32_t rank = 0; rank < ep_.ranks; ++rank)
        left_out[rank] = IsLeft(rank) && elastic_info[kElasticNewOfOld + rank] < 0;
    int status = LeaveOut(left_out.data());
    if (status == ACL_SUCCESS) status = Retire();
    if (status != ACL_SUCCESS) return status;
    elastic_.assign(elastic_info, elastic_info + words);
    nonce_ = nonce;
    looked_at_ = 0;
    remembered_ = std::make_unique<std::once_flag>();
    failure_ = std::string(kWho) + " on rank " + std::to_string(ep_rank_) + " of group " + name +
               " did not come to its end: the group cannot be used before it does";
    status = TakeMemory(kWho);
    if (status == ACL_SUCCESS) status = WriteContext(kWho, ep_, ep_rank_);
    if (status != ACL_SUCCESS) return status;
    status = RunAlone(Kernel::kOpen, Meeting{}, limit_ms);
    const std::string text = TakeText();
    timeout_s_ = KernelTimeoutSeconds();
    std::vector<uint32_t> control(kWatchedWords);
    const int read = ReadControl(&control);
    if (read != ACL_SUCCESS) return read;
    if (WaitedFor(control.data(), missing)) return kSomebodyMissing;
    if (status != ACL_SUCCESS) return Fail(status, "%s: %s", kWho, text.c_str());
    failure_.clear();
    status_ = ACL_SUCCESS;
    return ACL_SUCCESS;
}

// Who is left out may be alive, and late: its launches of this context must reach nobody. They find
// a failure in its own window, and its host finds who has told it.
int Group::LeaveOut(const uint8_t* ranks) {
    std::vector<uint32_t> blocks(2 * kBlockWords);
    blocks[0] = 1;
    blocks[kBlockWords] = nonce_;
    blocks[kBlockWords + 1] = ep_rank_ + 1;
    static_assert(kLeftOutOffset == kFailuresOffset + kBlockBytes, "told with one copy");
    return Tell(kFailuresOffset, blocks, ranks);
}

// Graphs that were captured with the context hold its address, so it stays.
int Group::Retire() {
    const uint32_t magic = kRetiredMagic;
    const int status = CopyToDevice(context_ + offsetof(Context, magic), &magic, sizeof(magic));
    if (status != ACL_SUCCESS) return Fail(status, "%s: cannot retire the context", kWho);
    retired_.push_back(context_);
    context_ = 0;
    return ACL_SUCCESS;
}

std::string Group::OfRetired(const uint32_t* control) const {
    if (retired_.empty() || control[kRetiredOffset / sizeof(uint32_t)] == 0) return "";
    return "rank " + std::to_string(ep_rank_) + " of group " + name +
           ": a graph was replayed that was captured before " + kWho +
           ", since when the group goes on without ranks " + Gone() +
           ": it has done nothing. Capture it again, with the elastic_info that " + kWho +
           " returned";
}

std::string Group::Gone() const {
    std::string text;
    for (uint32_t rank = 0; rank < ep_.ranks; ++rank) {
        if (!IsLeft(rank)) text += (text.empty() ? "" : ", ") + std::to_string(rank);
    }
    return text.empty() ? "[] (it was opened again with all)" : text;
}

}  // namespace ascend_moe

namespace {

using ascend_moe::Group;

template <typename Use>
int With(const char* name, char* problem, Use use) {
    constexpr size_t kProblemBytes = 1024;
    const std::shared_ptr<Group> group = Group::Known(name);
    problem[0] = '\0';
    if (group == nullptr) return ascend_moe::kUnknownGroup;
    const int status = use(*group);
    const std::string text = ascend_moe::TakeText();
    ascend_moe::TakeLastError();
    if (status != ACL_SUCCESS) snprintf(problem, kProblemBytes, "%s", text.c_str());
    return status;
}

}  // namespace

#define EXPORTED __attribute__((visibility("default")))

EXPORTED int ascend_moe_group_members(const char* group, ascend_moe_members* members,
                                      char* problem) {
    return With(group, problem, [&](Group& found) {
        ascend_moe::WaitForDevice();
        found.Describe(members);
        return ACL_SUCCESS;
    });
}

EXPORTED int ascend_moe_group_failure(const char* group, uint8_t* waited, char* problem) {
    return With(group, problem, [&](Group& found) { return found.Confirm(waited); });
}

EXPORTED int ascend_moe_group_tell(const char* group, const uint32_t* note, const uint8_t* to,
                                   char* problem) {
    return With(group, problem, [&](Group& found) { return found.TellNote(note, to); });
}

EXPORTED int ascend_moe_group_hear(const char* group, uint32_t* notes, uint8_t* dead,
                                   char* problem) {
    return With(group, problem, [&](Group& found) { return found.Hear(notes, dead); });
}

EXPORTED int ascend_moe_group_reopen(const char* group, const int32_t* elastic_info, uint32_t nonce,
                                     int64_t limit_ms, uint8_t* missing, char* problem) {
    return With(group, problem,
                [&](Group& found) { return found.Reopen(elastic_info, nonce, limit_ms, missing); });
}
