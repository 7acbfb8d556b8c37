// See launch.h: kernels on the virtual NPU, in hostsim, on the thread of the stream.
//
// Every launch has a simulated world of one rank of its own. Its memory is the operands of the
// launch and the windows of the group, by the addresses that kernels see; peers are other processes
// that write into the same windows. What the simulator's checker finds fails the stream, and so
// does a kernel that gave up, at once: on hardware the next call says it.
//
// ASCEND_MOE_VNPU_TRACE=FILE appends a line of JSON per launch: kernel, group, rank, cores,
// counters. For tests, ASCEND_MOE_VNPU_REFUSE_LAUNCH=KERNEL lets no launch of that kernel onto its
// stream. ASCEND_MOE_VNPU_CHECKS=0 is for the speed of a user's run, and not for tests: copies take
// effect at once and the simulator judges hardly anything.
#include "../launch.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../group.h"
#include "../report.h"
#include "hostsim.h"
#include "standin.h"

namespace ascend_moe {
namespace {

// Device memory of a rank; operands are this rank's.
struct Range {
    uint64_t begin, end;
    std::string name;
    uint32_t rank;
};

// Operands may overlap (views of one tensor); the simulator wants each address once.
std::vector<Range> Joined(std::vector<Range> ranges) {
    std::sort(ranges.begin(), ranges.end(),
              [](const Range& a, const Range& b) { return a.begin < b.begin; });
    std::vector<Range> joined;
    for (Range& range : ranges) {
        if (joined.empty() || range.begin >= joined.back().end) {
            joined.push_back(std::move(range));
        } else {
            joined.back().end = std::max(joined.back().end, range.end);
            joined.back().name += ", " + range.name;
        }
    }
    return joined;
}

class Simulation {
 public:
    explicit Simulation(const Launch& launch) : launch_(launch) {
        static std::atomic<uint64_t> launches{0};
        hostsim_schedule schedule = {};
        schedule.seed = ++launches * 1024 + launch.group->ep_rank();
        schedule.landing_percent = 30;
        schedule.stalled_rank = -1;
        schedule.alone = 1;
        schedule.max_steps = UINT64_MAX;
        static const bool unchecked = standin::IntegerOption("ASCEND_MOE_VNPU_CHECKS", 1) == 0;
        schedule.unchecked = unchecked;
        world_ = hostsim_new(&schedule);
    }
    ~Simulation() { hostsim_delete(world_); }

    int Run() {
        const char* name = NameOf(launch_.kernel);
        const int status = MapMemory();
        if (status != ACL_SUCCESS) return status;
        hostsim_watch(world_, &Simulation::Gone, this);
        std::vector<uint64_t> words;
        for (const Operand& operand : launch_.operands) words.push_back(operand.address);
        words.insert(words.end(), launch_.value.begin(), launch_.value.end());
        const uint32_t id =
            hostsim_launch(world_, static_cast<int32_t>(launch_.group->ep_rank()), 0,
                           launch_.blocks, name, words.data(), static_cast<uint32_t>(words.size()));
        if (id == 0) return standin::Fail(kInnerError, "no kernel %s takes these operands", name);
        const Control before = control();
        const bool finished = hostsim_run(world_) != 0;
        Trace(name, id);
        if (ended_) {
            control() = before;  // a kernel that is ended from outside says nothing
            return standin::Fail(ACL_ERROR_RT_VECTOR_CORE_TIMEOUT,
                                 "%s ran longer than the %ld ms that an operator may take here and "
                                 "was ended",
                                 name, standin::OperatorLimitMs());
        }
        if (!finished)
            return standin::Fail(kStuck, "%s is stuck: %s", name, hostsim_deadlock(world_));
        const std::string findings = hostsim_findings(world_);
        if (findings != "[]") {
            return standin::Fail(kStuck, "%s on rank %u breaks a rule of the hardware: %s", name,
                                 launch_.group->ep_rank(), findings.c_str());
        }
        return GaveUp();
    }

 private:
    static constexpr int kStuck = ACL_ERROR_RT_VECTOR_CORE_EXCEPTION;

    std::vector<Range> Memory() const {
        const Group& group = *launch_.group;
        std::vector<Range> ranges;
        const auto add = [&ranges](uint64_t begin, uint64_t bytes, const std::string& name,
                                   uint32_t rank) {
            if (bytes > 0) ranges.push_back({begin, begin + bytes, name, rank});
        };
        for (const Operand& operand : launch_.operands)
            add(operand.address, operand.bytes, operand.name, group.ep_rank());
        for (const Windows* windows : {&group.ep_windows(), &group.tp_windows()}) {
            for (uint32_t rank = 0; rank < windows->base.size(); ++rank) {
                if (windows->base[rank] == 0) continue;  // gone
                const std::string owner = " of rank " + std::to_string(rank);
                add(windows->base[rank], windows->bytes, "window" + owner, rank);
                if (windows->control[rank] != windows->base[rank])
                    add(windows->control[rank], kControlBytes, "control words" + owner, rank);
            }
        }
        return Joined(std::move(ranges));
    }

    int MapMemory() {
        for (const Range& range : Memory()) {
            const uint64_t bytes = range.end - range.begin;
            void* host = standin::HostAddress(reinterpret_cast<void*>(range.begin), bytes);
            if (host == nullptr && standin::BehindCard(reinterpret_cast<void*>(range.begin))) {
                return standin::Fail(kStuck,
                                     "%s: it is in another server and not mapped here, no core can "
                                     "access it: only RDMA reaches it",
                                     range.name.c_str());
            }
            if (host == nullptr) {
                return standin::Fail(kBadParameter,
                                     "%s: %lu bytes do not lie in live device memory",
                                     range.name.c_str(), static_cast<unsigned long>(bytes));
            }
            hostsim_map(world_, range.begin, bytes, static_cast<int32_t>(range.rank),
                        range.name.c_str(), host);
        }
        return ACL_SUCCESS;
    }

    // Where a kernel that gives up says so: failures, and the error blocks behind them.
    struct Control {
        char bytes[kErrorOffset + kErrorWords * sizeof(uint32_t)];
    };
    Control& control() const {
        const Group& group = *launch_.group;
        const uint64_t own = group.ep_windows().control[group.ep_rank()];
        return *static_cast<Control*>(
            standin::HostAddress(reinterpret_cast<void*>(own), sizeof(Control)));
    }

    // Asked now and then while a core waits; when the answer is yes the kernel ends by its own time
    // limit. A peer whose process has ended will not come. And the hardware lets no kernel run for
    // longer than the limit of operators.
    static int32_t Gone(void* self, const char* wait, uint32_t peer) {
        Simulation& simulation = *static_cast<Simulation*>(self);
        const Group& group = *simulation.launch_.group;
        const auto ran = std::chrono::steady_clock::now() - simulation.begin_;
        if (ran > std::chrono::milliseconds(standin::OperatorLimitMs())) {
            simulation.ended_ = true;
            return 1;
        }
        const bool of_pair = strcmp(wait, "TP rank") == 0;
        const auto found = standin::Group::Find(of_pair ? group.tp_name : group.name);
        return found == nullptr || !found->Alive(peer);
    }

    int GaveUp() const {
        if (launch_.kernel == Kernel::kMeet) return ACL_SUCCESS;  // the host compares
        const uint64_t control = launch_.group->ep_windows().control[launch_.group->ep_rank()];
        const void* records = standin::HostAddress(reinterpret_cast<void*>(control + kErrorOffset),
                                                   kErrorWords * sizeof(uint32_t));
        const std::string failure = launch_.group->Failure(static_cast<const uint32_t*>(records));
        if (failure.empty()) return ACL_SUCCESS;
        return standin::Fail(ACL_ERROR_RT_VECTOR_CORE_EXCEPTION, "%s", failure.c_str());
    }

    void Trace(const char* name, uint32_t id) {
        static const char* path = getenv("ASCEND_MOE_VNPU_TRACE");
        if (path == nullptr || *path == '\0') return;
        FILE* file = fopen(path, "a");
        if (file == nullptr) return;
        const std::string line = "{\"kernel\": \"" + std::string(name) + "\", \"group\": \"" +
                                 launch_.group->name +
                                 "\", \"rank\": " + std::to_string(launch_.group->ep_rank()) +
                                 ", \"pid\": " + std::to_string(getpid()) +
                                 ", \"cores\": " + std::to_string(launch_.blocks) +
                                 ", \"counters\": " + hostsim_counters(world_, id) + "}\n";
        fwrite(line.data(), 1, line.size(), file);  // one write: lines of ranks do not mix
        fclose(file);
    }

    const Launch& launch_;
    hostsim_world* world_;
    const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
    bool ended_ = false;
};

}  // namespace

void Enqueue(const Launch& launch, aclrtStream stream) {
    // As CANN's runtime (v8.5.0, api_error.cc, KernelLaunch): refused at once, not by the stream.
    if (launch.blocks == 0) {
        standin::Fail(ACL_ERROR_RT_PARAM_INVALID, "a launch on 0 cores");
        return;
    }
    static const char* refused = getenv("ASCEND_MOE_VNPU_REFUSE_LAUNCH");
    if (refused != nullptr && strcmp(refused, NameOf(launch.kernel)) == 0) {
        standin::Fail(ACL_ERROR_RT_PARAM_INVALID, "this launch is refused on purpose");
        return;
    }
    standin::Launch(stream, NameOf(launch.kernel), [launch] { return Simulation(launch).Run(); });
}

bool StreamsShowFailures() {
    static const bool left = standin::IntegerOption("TASK_QUEUE_ENABLE", 1) == 2;
    return left;
}

int StartFailing(const char* name, int status, const std::string& text, aclrtStream stream) {
    return standin::Launch(stream, name,
                           [status, text] { return standin::Fail(status, "%s", text.c_str()); });
}

}  // namespace ascend_moe
