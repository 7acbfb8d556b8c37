// See post.h.
#include "post.h"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace ascend_moe {
namespace {

constexpr const char* kAgreedNames[kAgreed] = {"operator",
                                               "ep_world_size",
                                               "moe_expert_num",
                                               "shared_expert_num",
                                               "shared_expert_rank_num",
                                               "H",
                                               "K",
                                               "max_bs",
                                               "quant_mode",
                                               "comm_quant_mode",
                                               "data type",
                                               "tp_world_size"};

constexpr size_t kProblemBytes = 512;

int64_t Microseconds() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}

}  // namespace

struct Exchange::Header {
    Agreement agreement;
    int64_t word_count;
    int64_t row_count;
    int64_t bytes;      // of all that is posted, this header too
    int64_t posted_at;  // microseconds of a clock that all processes share
    char problem[kProblemBytes];
};

Exchange::Exchange(std::string group_name, const char* op)
    : group_(standin::Group::Find(group_name)), group_name_(std::move(group_name)), op_(op) {}

int Exchange::Refuse(const std::string& why) const {
    return standin::Fail(ACL_ERROR_RT_VECTOR_CORE_EXCEPTION, "%s: %s", op_, why.c_str());
}

int Exchange::Post(const Agreement& agreement, const std::vector<int32_t>& words, const void* rows,
                   int64_t row_count, int64_t row_bytes, const std::string& local_problem) {
    if (group_ == nullptr) return Refuse("the group " + group_name_ + " has been destroyed");
    std::string problem = local_problem;
    const size_t bytes = sizeof(Header) + words.size() * sizeof(int32_t) + row_count * row_bytes;
    const size_t room = group_->window(group_->rank()).bytes;
    if (problem.empty() && bytes > room) {
        problem = "HCCL_BUFFSIZE is too SMALL: " + std::to_string(row_count) + " rows of " +
                  std::to_string(row_bytes) + " bytes do not fit into the window of " +
                  std::to_string(room) + " bytes";
    }
    Header header = {agreement, 0, 0, sizeof(Header), Microseconds(), {}};
    char* window = static_cast<char*>(group_->window(group_->rank()).host_address);
    if (problem.empty()) {
        header.bytes = bytes;
        header.word_count = words.size();
        header.row_count = row_count;
        memcpy(window + sizeof(Header), words.data(), words.size() * sizeof(int32_t));
        if (row_count > 0)
            memcpy(window + sizeof(Header) + words.size() * sizeof(int32_t), rows,
                   row_count * row_bytes);
    }
    strncpy(header.problem, problem.c_str(), kProblemBytes - 1);
    memcpy(window, &header, sizeof(header));
    const int status = group_->KernelBarrier(op_);
    if (status != ACL_SUCCESS) return status;
    std::string refused;
    for (uint32_t r = 0; r < group_->size(); ++r) {
        Take(r);
        waited_.push_back(std::max<int64_t>(HeaderOf(r)->posted_at - header.posted_at, 0));
    }
    for (uint32_t r = 0; r < group_->size() && refused.empty(); ++r) {
        const Header* other = HeaderOf(r);
        if (other->problem[0] != '\0')
            refused = "rank " + std::to_string(r) + ": " + other->problem;
    }
    for (uint32_t r = 0; r < group_->size() && refused.empty(); ++r) {
        const Header* other = HeaderOf(r);
        for (size_t i = 0; i < kAgreed && refused.empty(); ++i) {
            if (other->agreement[i] == agreement[i]) continue;
            refused = std::string("the ranks disagree about ") + kAgreedNames[i] + ": " +
                      std::to_string(agreement[i]) + " on rank " + std::to_string(group_->rank()) +
                      ", " + std::to_string(other->agreement[i]) + " on rank " + std::to_string(r);
        }
    }
    return refused.empty() ? ACL_SUCCESS : Refuse(refused);
}

void Exchange::Take(uint32_t rank) {
    const void* window = group_->window(rank).host_address;
    received_.emplace_back();
    if (window != nullptr) {
        posted_.push_back(static_cast<const char*>(window));
        return;
    }
    Header header;
    group_->Receive(rank, 0, &header, sizeof(header));
    received_.back().resize(header.bytes);
    group_->Receive(rank, 0, received_.back().data(), header.bytes);
    posted_.push_back(received_.back().data());
}

PostedRows Exchange::From(int64_t rank) const {
    const Header* header = HeaderOf(rank);
    const int32_t* words = reinterpret_cast<const int32_t*>(posted_[rank] + sizeof(Header));
    return {words, header->word_count, reinterpret_cast<const char*>(words + header->word_count),
            header->row_count};
}

int Exchange::Finish(const std::string& problem) {
    const int status = group_->KernelBarrier(op_);
    if (status != ACL_SUCCESS) return status;
    return problem.empty() ? ACL_SUCCESS : Refuse(problem);
}

void Exchange::TellWaits(const DeviceTensor& microseconds, bool a2) const {
    if (!microseconds.present()) return;
    const std::vector<int64_t> before = microseconds.Load<int64_t>();
    for (size_t rank = 0; rank < before.size(); ++rank) {
        microseconds.Store<int64_t>(
            rank, a2 ? before[rank] + waited_[rank] : std::max(before[rank], waited_[rank]));
    }
}

}  // namespace ascend_moe
