// Once per context, behind the meeting: clears the control area, and says hello to the mates and
// over the rail. docs/kernels-hierarchy.md, section 4, point 6.
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
        servers.TellRail(MOE_FLAG("hello"), window, post, TagSource::kHello, kHelloOffset, 0);
        servers.WaitForShare(MOE_FLAG("hello"), window, kHelloOffset, 0);
    }
};

}  // namespace ascend_moe
