// One exchange of rows between the ranks of a group.
//
//   Post      every rank writes a header, some words and its rows into its own window
//   (barrier)
//   From      everyone reads what is meant for it from the windows of the others
//   Finish    (barrier) the windows may be used again
//
// The window of a rank in another server is not mapped here. What it has posted comes as a message,
// whole, when the barrier has been passed.
//
// The header says what the rank believes about the call. Ranks that disagree, or one that cannot
// take part, end the call with an error on every rank; on hardware they would wait for each other
// for ever.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "memory.h"
#include "standin.h"

namespace ascend_moe {

constexpr size_t kAgreed = 12;

// What all ranks must have in common, in the order of kAgreedNames (post.cpp).
using Agreement = std::array<int64_t, kAgreed>;

struct PostedRows {
    const int32_t* words;
    int64_t word_count;
    const char* rows;
    int64_t row_count;
};

class Exchange {
 public:
    Exchange(std::string group_name, const char* op);

    // Rows lie one behind the other. A non-empty problem takes the place of the data. Returns after
    // the barrier.
    int Post(const Agreement& agreement, const std::vector<int32_t>& words, const void* rows,
             int64_t row_count, int64_t row_bytes, const std::string& problem);
    PostedRows From(int64_t rank) const;
    // `problem` is what this rank found while reading; the barrier is passed all the same.
    int Finish(const std::string& problem);
    // How long this rank waited for each one, into `microseconds`: added on A2, on A3 only where it
    // is longer. CANN's kernels: moe_distribute_dispatch_a2.h, SetAtomicAdd;
    // moe_distribute_dispatch_v2.h, PerformanceInfoCopyOut, SetAtomicMax.
    void TellWaits(const DeviceTensor& microseconds, bool a2) const;

 private:
    struct Header;

    int Refuse(const std::string& why) const;
    void Take(uint32_t rank);
    const Header* HeaderOf(int64_t rank) const {
        return reinterpret_cast<const Header*>(posted_[rank]);
    }

    const std::shared_ptr<standin::Group> group_;
    const std::string group_name_;
    const char* const op_;
    // Per rank, from Post to Finish: what it has posted, which may lie in `received_`.
    std::vector<const char*> posted_;
    std::vector<std::vector<char>> received_;
    std::vector<int64_t> waited_;  // microseconds, per rank
};

}  // namespace ascend_moe
