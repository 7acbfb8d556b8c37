// Which ranks of a group share a server, as HCCL says.
//
// HCCL's rank graph (CANN 8.5 and later) answers without building a link, so it can be asked before
// anything that decides what kind of links a communicator gets. Numbers of ranks say nothing: eight
// ranks may be halves of two A2 servers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ascend_moe {

struct Servers {
    bool known = false;           // this CANN has a rank graph
    std::string unknown;          // or what it lacks
    std::vector<uint32_t> here;   // the ranks in the server of this one, ascending
    std::vector<uint32_t> sizes;  // how many ranks stand in each server
    // The ranks whose memory a core can address: those of the server on A2, of the super-pod on A3.
    std::vector<uint32_t> reach;
    // The ranks of each server, on A2, where HCCL lists those of all.
    std::vector<std::vector<uint32_t>> ranks;

    bool one() const { return known && sizes.size() == 1; }
    // Whether some rank is behind a network card.
    bool apart() const;
    // "2 servers, of 4 and 4 ranks; in this one ranks 0, 1, 2 and 3".
    std::string Text() const;
    // "2 servers: ranks 0, 1, 2, 3 on one; ranks 4, 5, 6, 7 on another".
    std::string Ranks() const;
};

// ACL_SUCCESS, or an aclnn status with a text when HCCL fails. All ranks of a group get the same
// but for `here` and `reach`.
int FindServers(const std::string& group, Servers* found);

}  // namespace ascend_moe
