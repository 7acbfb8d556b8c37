// Once per context, behind the meeting: as hierarchy/open.h, with all ranks of other servers.
#pragma once

// clang-format off
#include "../hierarchy/open.h"  // first: abi.h takes its integer types from kernel_operator.h
#include "abi.h"
// clang-format on

namespace ascend_moe {

// This core's share of them, the same in every step.
struct MeshFar {
    const Servers& servers;
    Window& window;
    RdmaPost& post;

    __aicore__ inline void Tell(FlagName what, TagSource source, uint32_t epoch) const {
        for (uint32_t peer = window.core; peer < window.ranks && !window.failed;
             peer += window.cores) {
            if (servers.IsMate(peer)) continue;
            QueuePair pair = servers.QueueTo(post, peer);
            post.PostTag(what, window, pair, MeshOpenTagOffset(source, peer),
                         kHelloOffset + window.rank * kBlockBytes, epoch);
        }
    }
    __aicore__ inline void WaitWithMates(FlagName what, uint32_t epoch) const {
        servers.WaitForMates(what, window, kHelloOffset, epoch);
        Wait(what, epoch);
    }
    __aicore__ inline void Wait(FlagName what, uint32_t epoch) const {
        for (uint32_t peer = window.core; peer < window.ranks; peer += window.cores) {
            if (!servers.IsMate(peer))
                window.Wait(what, kHelloOffset + peer * kBlockBytes, 1, 1, peer, epoch);
        }
    }
};

using MeshOpenKernel = ServersOpenKernel<MeshFar>;

}  // namespace ascend_moe
