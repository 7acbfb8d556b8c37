// Once per context: clears the control area, says hello to the mates, and meets the rail.
// docs/kernels-hierarchy.md, section 4, point 6.
//
// The nonce is fresh, all ranks have agreed on it, and nothing older runs on any of them. What an
// older context has posted may still be under way over the network. So the rail greets, and answers
// what it has seen: a greeting says that this rank has cleared its control area, the answer to it
// that all older messages of this rank have landed, for they were before the greeting on the same
// queue pair. Then the output is free, and whoever reads the input finds nothing old behind new.
#pragma once

#include "../open.h"
#include "servers.h"

namespace ascend_moe {

class HierarchyOpenKernel {
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
        servers.TellRail(MOE_FLAG("greeting"), window, post, TagSource::kGreeting, kHelloOffset,
                         kGreeted);
        servers.WaitForShare(MOE_FLAG("hello"), window, kHelloOffset, kGreeted);
        servers.TellRail(MOE_FLAG("answer"), window, post, TagSource::kAnswer, kHelloOffset,
                         kAnswered);
        servers.WaitForRail(MOE_FLAG("answer"), window, kHelloOffset, kAnswered);
    }

 private:
    static constexpr uint32_t kGreeted = 0, kAnswered = 1;
};

}  // namespace ascend_moe
