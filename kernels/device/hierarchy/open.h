// Once per context: clears the control area, says hello to the mates, and meets the ranks of other
// servers that this one has queue pairs to. docs/kernels-hierarchy.md, section 4, point 6.
//
// The nonce is fresh, all ranks have agreed on it, and nothing older runs on any of them. What an
// older context has posted may still be under way over the network. So both ends of a queue pair
// greet, and answer what they have seen: a greeting says that this rank has cleared its control
// area, the answer to it that all older messages of this rank have landed, for they were before the
// greeting on the same queue pair. Then the output is free, and whoever reads the input finds
// nothing old behind new.
#pragma once

#include "../open.h"
#include "servers.h"

namespace ascend_moe {

// Far says who is met there, and where what is told starts: RailFar, or MeshFar (../mesh/open.h).
template <typename Far>
class ServersOpenKernel {
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
        const Far far{servers, window, post};
        if (window.core == 0) window.WriteState(0, 0, 0, kLastNone);
        servers.TellMates(MOE_FLAG("hello"), window, block.Get<uint32_t>(), kHelloOffset, 0, 0);
        far.Tell(MOE_FLAG("greeting"), TagSource::kGreeting, kGreeted);
        far.WaitWithMates(MOE_FLAG("hello"), kGreeted);
        far.Tell(MOE_FLAG("answer"), TagSource::kAnswer, kAnswered);
        far.Wait(MOE_FLAG("answer"), kAnswered);
    }

 private:
    static constexpr uint32_t kGreeted = 0, kAnswered = 1;
};

struct RailFar {
    const Servers& servers;
    Window& window;
    RdmaPost& post;

    __aicore__ inline void Tell(FlagName what, TagSource source, uint32_t epoch) const {
        servers.TellRail(what, window, post, source, kHelloOffset, epoch);
    }
    __aicore__ inline void WaitWithMates(FlagName what, uint32_t epoch) const {
        servers.WaitForShare(what, window, kHelloOffset, epoch);
    }
    __aicore__ inline void Wait(FlagName what, uint32_t epoch) const {
        servers.WaitForRail(what, window, kHelloOffset, epoch);
    }
};

using HierarchyOpenKernel = ServersOpenKernel<RailFar>;

}  // namespace ascend_moe
