// Once per context, behind the meeting: clears the control area and says hello to all ranks.
#pragma once

// clang-format off
#include "../hierarchy/servers.h"  // first: abi.h takes its integer types from kernel_operator.h
#include "../open.h"
#include "abi.h"
// clang-format on

namespace ascend_moe {

class MeshOpenKernel {
 public:
    __aicore__ inline void Run(TPipe* pipe, GM_ADDR context, const Meeting& meeting) {
        Window window;
        Servers servers;
        RdmaPost post;
        Buffer block;
        OpenKernel::Clear(pipe, context, meeting, window, /*keep_notes=*/false);
        servers.Init(context, window);
        window.InitBuffers(pipe, 1);
        post.InitBuffers(pipe);
        pipe->InitBuffer(block, kBlockBytes);
        if (window.core == 0) window.WriteState(0, 0, 0, kLastNone);
        servers.TellMates(MOE_FLAG("hello"), window, block.Get<uint32_t>(), kHelloOffset, 0, 0);
        for (uint32_t peer = window.core; peer < window.ranks && !window.failed;
             peer += window.cores) {
            if (peer / servers.topology.per_server == servers.topology.server) continue;
            QueuePair pair = servers.QueueTo(post, peer);
            post.PostTag(MOE_FLAG("hello"), window, pair, MeshTagOffset(0, peer),
                         kHelloOffset + window.rank * kBlockBytes, 0);
        }
        for (uint32_t peer = window.core; peer < window.ranks; peer += window.cores)
            window.Wait(MOE_FLAG("hello"), kHelloOffset + peer * kBlockBytes, 1, 1, peer, 0);
    }
};

}  // namespace ascend_moe
