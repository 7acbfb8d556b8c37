// A few words of this rank into the control areas of other ranks, while the group's own protocol
// rests: how ranks that are left of a group meet without the others, when launches have failed and
// no flag of the context can be trusted. What the words mean is the host's business
// (op_api/survivors.h); it reads them from its own window.
//
// Nothing is waited for. A reader may find a copy half done, so the words carry a checksum.
#pragma once

#include "window.h"

namespace ascend_moe {

class TellKernel {
 public:
    __aicore__ inline void Run(TPipe* pipe, GM_ADDR context, const Telling& telling) {
        Window window;
        window.Init(context, 0, kLastNone);
        window.CountAll();
        Buffer said;
        pipe->InitBuffer(said, kTellingWords * 4);
        LocalTensor<uint32_t> words = said.Get<uint32_t>();
        for (uint32_t i = 0; i < kTellingWords; ++i) words.SetValue(i, telling.words[i]);
        MOE_SYNC(S_MTE3);
        for (uint32_t rank = window.core; rank < window.ranks; rank += window.cores) {
            if ((telling.to[rank / 32] >> rank % 32 & 1) == 0) continue;
            Store(At<uint32_t>(window.Control(rank, telling.offset)), words, telling.count);
        }
    }
};

}  // namespace ascend_moe
