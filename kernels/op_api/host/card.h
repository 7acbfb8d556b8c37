// The network card of this rank, of a group that spans servers: hostsim's card at work on the
// queues that HCCL has laid out. What a kernel posts lands in the window of another process.
//
// A card lives as long as a launch. hostsim ends a launch when all that it has posted is delivered,
// so the next one finds empty queues and goes on where their heads stand.
//
// For tests, ASCEND_MOE_VNPU_DEAD_QUEUE=FROM:TO:COUNT: the queue pair from one rank to another
// delivers so many messages, and nothing more.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../group.h"
#include "hostsim.h"

namespace ascend_moe {

// Device memory of a rank; operands are this rank's.
struct Range {
    uint64_t begin, end;
    std::string name;
    uint32_t rank;
};

class Card {
 public:
    // `problem` is set when the tables do not lie in live device memory.
    Card(const Group& group, std::string* problem);

    // What a kernel reads and writes when it posts: tables, queues, the output buffer.
    const std::vector<Range>& memory() const { return memory_; }
    // Tells the world, which has that memory by then, of servers, buffers and queues.
    void Attach(hostsim_world* world) const;

 private:
    void Add(uint64_t begin, uint64_t bytes, const std::string& name);
    int64_t Delivers(uint32_t peer, uint32_t head) const;

    const Group& group_;
    std::vector<Range> memory_;
    std::vector<hostsim_queue> queues_;
    std::vector<hostsim_region> regions_;
};

}  // namespace ascend_moe
