// See error_record.h.
#include "error_record.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "device/abi.h"
#include "entry/calls.h"

namespace ascend_moe {
namespace {

#ifdef ASCEND_MOE_VIRTUAL_NPU
constexpr bool kVirtualNpu = true;
#else
constexpr bool kVirtualNpu = false;
#endif

const char* OperatorOf(const uint32_t* record) {
    if (record[kErrorOp] == kLastNone)
        return record[kErrorReason] == kForeignUse ? "between two calls" : "opening the group";
    return record[kErrorOp] == kLastDispatch ? DispatchCall::kOperator : CombineCall::kOperator;
}

uint32_t RankOf(const uint32_t* record) { return record[kErrorPeer] - 1; }

// Whether nobody but this user writes there: require_own of ascend_moe/native.py.
bool IsOwn(const std::string& folder) {
    struct stat found;
    return lstat(folder.c_str(), &found) == 0 && S_ISDIR(found.st_mode) &&
           found.st_uid == geteuid() && (found.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

// $XDG_CACHE_HOME/ascend-moe/errors, made if it is not there; empty if that fails.
std::string Folder() {
    const char* cache = getenv("XDG_CACHE_HOME");
    const char* home = getenv("HOME");
    std::string path;
    if (cache != nullptr && *cache != '\0') {
        path = cache;
    } else if (home != nullptr) {
        path = std::string(home) + "/.cache";
    } else {
        return "";
    }
    if (path[0] != '/') return "";
    mkdir(path.c_str(), 0700);
    for (const char* part : {"/ascend-moe", "/errors"}) {
        path += part;
        mkdir(path.c_str(), 0700);
        if (!IsOwn(path)) return "";
    }
    return path;
}

// Group names are HCCL's or the user's; what JSON cannot hold is left out.
std::string Plain(const std::string& text) {
    std::string plain;
    for (char c : text) {
        if (c >= ' ' && c != '"' && c != '\\') plain += c;
    }
    return plain;
}

// How elastic_info differs from what the ranks of the group have agreed on.
std::string OtherRanks(const uint32_t* record) {
    const std::string what = "pass what ascend_moe.shrink() returned last";
    const uint32_t word = record[kErrorIndex];
    const int32_t said = static_cast<int32_t>(record[kErrorSaid]);
    if (word == kElasticScaled && said == 0)
        return "it is None or its word 0 is 0, but some ranks of the group are gone: " + what;
    if (word == kElasticScaled)
        return "word 0 is " + std::to_string(said) +
               ", but no ranks of this group have met without others: "
               "ascend_moe.shrink(group_ep, dead_ranks) first";
    return "word " + std::to_string(word) + " is " + std::to_string(said) +
           ", which is not what the ranks that are left have agreed on: " + what;
}

}  // namespace

std::string Text(const GaveUp& event) {
    const std::string where = std::string(OperatorOf(event.record)) + " on rank " +
                              std::to_string(event.ep_rank) + " of group " + event.group;
    const std::string rank = std::to_string(RankOf(event.record));
    const std::string end = ". The group cannot be used any more; make a new one";
    switch (event.record[kErrorReason]) {
        case kOtherCores:
            return where + ": TP rank " + rank + " launched on " +
                   std::to_string(event.record[kErrorCores]) +
                   " cores, this one on another number: both need the same limit of cores" + end;
        case kOtherCall:
            return where + ": rank " + rank +
                   " made another call: all ranks must have the same max_bs, H, K, numbers of "
                   "experts, "
                   "quant modes and data type" +
                   end;
        case kForeignUse:
            return where +
                   ": somebody else has written to the HCCL buffer of the group. Nothing but "
                   "dispatch "
                   "and combine may run in an EP group: ordinary collectives, and CANN's own "
                   "kernels "
                   "in max-autotune graphs, use the same buffer" +
                   end;
        case kOtherRanks:
            return where + ": E-15 elastic_info: " + OtherRanks(event.record) + end;
        default:
            return where + ": rank " + rank + " did not come (time limit " +
                   std::to_string(event.waited_s) + " s). It died, or has made another call" + end;
    }
}

void Remember(const GaveUp& event) {
    if (event.record[kErrorReason] != kAbsent) return;
    const std::string folder = Folder();
    if (folder.empty()) return;
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    const int64_t microseconds = std::chrono::duration_cast<std::chrono::microseconds>(now).count();
    const std::string path =
        folder + "/" + std::to_string(microseconds) + "-" + std::to_string(getpid()) + ".json";
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    const int descriptor = open((path + ".new").c_str(), flags, 0600);
    FILE* file = descriptor < 0 ? nullptr : fdopen(descriptor, "w");
    if (file == nullptr) return;
    fprintf(file,
            "{\"time\": %.3f, \"pid\": %d, \"group\": \"%s\", \"ep_rank\": %u, \"op\": \"%s\", "
            "\"missing_rank\": %u, \"waited_s\": %ld, \"virtual_npu\": %s}\n",
            static_cast<double>(microseconds) / 1e6, getpid(), Plain(event.group).c_str(),
            event.ep_rank, OperatorOf(event.record), RankOf(event.record), event.waited_s,
            kVirtualNpu ? "true" : "false");
    const bool complete = fclose(file) == 0;
    if (!complete || rename((path + ".new").c_str(), path.c_str()) != 0)
        unlink((path + ".new").c_str());
}

}  // namespace ascend_moe
