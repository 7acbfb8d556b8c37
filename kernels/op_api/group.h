// The EP groups of this process: who runs their calls, and what our kernels need for it.
//
// Stock and our window layouts are incompatible, so ours or stock is decided once per group and
// device, at its first call, for dispatch and combine alike, by all ranks together (agreement.h):
//
//   off        ASCEND_MOE_KERNELS=off: this rank says stock
//   auto       ours where they can serve the group (product, algorithm, windows), else stock
//   require    the same, and stock, whoever says it, is an error on all ranks
//
// With it its Form is decided, from the algorithm of that call and from where HCCL says the ranks
// are: HCCL makes the links of a group once, so what asks first must be what runs later. Full mesh
// over A2 servers has a point of no return there: when all have said ours the links are made that
// our kernels want, on which CANN's do not run; whatever goes wrong from then on is an error.
//
// Ranks that stand on several A2 servers, and so few that CANN's kernels would take them for one,
// are served by ours or by nobody: else an error under auto and require, a warning under off.
//
// When all have said ours, a kernel meets them (device/meet.h) and compares window sizes and TP:
// what differs or is damaged from here on is an error. The choice stands: a call that our kernels
// cannot serve is an error, never a fallback. A group that failed once stays failed; make a new
// one, or go on without the ranks that are gone (survivors.h): a new context in the same windows.
#pragma once

#include <cstdint>  // before abi.h
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "agreement.h"
#include "device/abi.h"
#include "device/hierarchy/abi.h"
#include "entry/check.h"
#include "survivors.h"
#include "windows.h"

namespace ascend_moe {

enum class Kernel;

// How the kernels of a group reach its ranks.
enum class Form {
    kWindows,    // full mesh: a core writes into the windows of all
    kHierarchy,  // hierarchy: by window inside a server, by network card between servers
    kMesh,       // full mesh over several servers: the same, to each rank directly
};
const char* NameOf(Form form);

constexpr uint32_t kErrorWords = kMaxCores * kBlockWords;  // of all error blocks of a window
// From the beginning of a window to their end: what tells the host how launches have ended.
constexpr uint32_t kWatchedWords = kErrorOffset / sizeof(uint32_t) + kErrorWords;

class Group : public std::enable_shared_from_this<Group> {
 public:
    Group(std::string ep_name, std::string tp_group_name)
        : name(std::move(ep_name)), tp_name(std::move(tp_group_name)) {}
    ~Group();
    Group(const Group&) = delete;
    Group& operator=(const Group&) = delete;

    // The group of a call, opened if this is its first. ACL_SUCCESS, or a status with a text.
    static int Of(const char* op, const Attributes& attributes, std::shared_ptr<Group>* group);
    // The same before a call, with another way for the words of the ranks. Whether it is decided.
    static bool Decide(const char* op, const Attributes& attributes, const Exchange& exchange);

    // One that was asked for before, on this thread's device; null if none was.
    static std::shared_ptr<Group> Known(const std::string& name);

    // For first_steps_probe.cpp: these windows and this nonce, without a meeting of the ranks.
    int OpenForProbe(const Windows& windows, uint32_t nonce);

    const std::string name, tp_name;  // no tp_name: without TP

    bool ours() const { return ours_; }
    Form form() const { return form_; }
    bool tp() const { return !tp_name.empty(); }
    const Windows& ep_windows() const { return ep_; }
    const Windows& tp_windows() const { return tp_; }
    uint32_t ep_rank() const { return ep_rank_; }
    // Device address of a HierarchyContext; of its head alone, by windows alone.
    uint64_t context() const { return context_; }
    // In several servers; all ranks in one, by windows alone.
    Topology topology() const;
    uint32_t timeout_ticks() const { return timeout_ticks_; }

    // Why nothing can be launched any more: from the state and the error blocks of the own window,
    // which are read at most once a second. Empty while all is well.
    std::string Failure();
    // The failure that is there now, whenever was looked last. Under the lock.
    std::string Look();
    std::string Look(const uint32_t* control);
    // The same from kWatchedWords that have been read already.
    std::string Failure(const uint32_t* control) const;
    // Of a launch that a graph has made with a retired context: an error of that launch alone.
    std::string OfRetired(const uint32_t* control) const;

    // survivors.cpp
    bool shrunk() const { return !elastic_.empty(); }
    std::string Gone() const;  // the ranks that are
    void Serves(const Attributes& attributes);
    void Describe(ascend_moe_members* members);
    int TellNote(const uint32_t* note, const uint8_t* to);
    int Hear(uint32_t* notes, uint8_t* dead);
    int Confirm(uint8_t* waited);
    int Reopen(const int32_t* elastic_info, uint32_t nonce, int64_t limit_ms, uint8_t* missing);

 private:
    static std::shared_ptr<Group> Find(int32_t device, const Attributes& attributes);
    int OpenOnce(const char* op, const Attributes& attributes, const Exchange& exchange);

    // deciding.cpp
    int Open(const char* op, const Attributes& attributes, const Exchange& exchange);
    int AgreeWithAll(const char* op, Word own, int64_t limit_s, const Exchange& exchange,
                     Decision* decision) const;
    int OpenAstray(const char* op, const Attributes& attributes, const std::string& servers,
                   const Decision& decision);
    int OpenStock(const char* op, const Attributes& attributes, const Decision& decision);
    static void Announce(const Attributes& attributes, const char* whose, const std::string& more);
    int FindAllWindows(int64_t ranks);

    // opening.cpp
    int TakeMemory(const char* op);
    void GiveMemoryBack();
    int OpenOurs(const char* op, const Attributes& attributes);
    int CheckWindows(const char* op, const Attributes& attributes);
    int Meet(const char* op, const Windows& windows, uint32_t rank, const char* parameter,
             uint32_t* nonce);
    int Compare(const char* op, const char* parameter, const Meeting& own,
                const std::vector<uint32_t>& blocks) const;
    int WriteContext(const char* op, const Windows& windows, uint32_t rank);
    int RunAlone(Kernel kernel, Meeting meeting, int64_t limit_ms);

    // survivors.cpp
    bool IsLeft(uint32_t rank) const {
        return elastic_.empty() || elastic_[kElasticNewOfOld + rank] >= 0;
    }
    int Tell(uint32_t offset, const std::vector<uint32_t>& words, const uint8_t* to);
    int ReadControl(std::vector<uint32_t>* control) const;
    bool WaitedFor(const uint32_t* control, uint8_t* ranks) const;  // whether any core has given up
    int LeaveOut(const uint8_t* ranks);
    int Retire();

    // An opening that a capture refuses; the next call tries again.
    static constexpr int kTryEagerFirst = -1;

    std::mutex mutex_;
    bool opened_ = false;
    int status_ = 0;  // of opening
    std::string problem_;
    bool ours_ = false;
    Form form_ = Form::kWindows;
    uint32_t per_server_ = 0;  // ranks; 0 by windows alone
    Windows ep_, tp_;
    uint32_t ep_rank_ = 0, tp_rank_ = 0, nonce_ = 0, first_nonce_ = 0, tp_nonce_ = 0;
    uint64_t context_ = 0;
    std::vector<uint64_t> retired_;  // contexts
    std::vector<int32_t> elastic_;   // elastic_info, when some ranks are gone
    Attributes served_;              // of the last call
    int64_t timeout_s_ = 0;
    uint32_t timeout_ticks_ = 0;
    int64_t looked_at_ = 0;  // milliseconds
    std::unique_ptr<std::once_flag> remembered_ = std::make_unique<std::once_flag>();
    std::string failure_;
};

}  // namespace ascend_moe
