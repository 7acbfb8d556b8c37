// Before the context of a group has a nonce: every rank learns a fresh random number of every other
// one, and what it has decided. Ranks without an address are gone: nobody waits for them.
//
// Nothing in the windows can be trusted yet, an old meeting may lie there word for word. So a rank
// writes {its nonce, nothing heard} to every peer, and whenever it reads a new nonce of a peer, it
// answers {its nonce, the peer's nonce}. A block that carries this rank's own nonce was written
// after this rank began, hence the nonce beside it is fresh too. The host makes the nonce of the
// group from those of all ranks: docs/kernels.md section 4, point 5.
#pragma once

#include "window.h"

namespace ascend_moe {

class MeetKernel {
 public:
    __aicore__ inline void Run(TPipe* pipe, GM_ADDR context, const Meeting& meeting) {
        window_.Init(context, meeting.timeout_ticks, kLastNone);
        window_.opened = false;
        window_.CountAll();
        peers_ = ShareOf(window_.ranks, window_.core, window_.cores);
        uint32_t count = peers_.end - peers_.begin;
        if (count == 0) return;
        window_.InitBuffers(pipe, 1);
        pipe->InitBuffer(said_, count * kBlockBytes);
        pipe->InitBuffer(heard_, count * kBlockBytes);
        pipe->InitBuffer(met_, count * 4);
        Greet(meeting, count);
        LocalTensor<uint32_t> met = met_.Get<uint32_t>();
        for (uint32_t all = 0; all < count && !window_.failed;) {
            if (WaitDropped(MOE_FLAG("meeting"))) return;
            LocalTensor<uint32_t> heard = heard_.Get<uint32_t>();
            {
                PollScope poll;
                Load(heard, At<uint32_t>(window_.Control(window_.rank, Place(peers_.begin))),
                     count * kBlockWords);
            }
            MOE_SYNC(MTE2_S);
            uint32_t missing = 0;
            all = 0;
            for (uint32_t i = 0; i < count; ++i) {
                if (met.GetValue(i) == 0) met.SetValue(i, Answer(heard[i * kBlockWords], i));
                all += met.GetValue(i);
                if (met.GetValue(i) == 0) missing = i;
            }
            MOE_SYNC(S_MTE2);
            if (all < count) window_.Pause(MOE_FLAG("meeting"), peers_.begin + missing, 0);
        }
    }

 private:
    __aicore__ inline static uint64_t Place(uint32_t rank) {
        return kMeetOffset + rank * kBlockBytes;
    }

    // The first blocks, with nothing heard.
    __aicore__ inline void Greet(const Meeting& meeting, uint32_t count) {
        LocalTensor<uint32_t> said = said_.Get<uint32_t>(), met = met_.Get<uint32_t>();
        for (uint32_t i = 0; i < count; ++i) {
            LocalTensor<uint32_t> block = said[i * kBlockWords];
            block.SetValue(kMeetTag, kMeetMagic);
            for (uint32_t word = 0; word < 2; ++word) {
                block.SetValue(kMeetNonce + word, meeting.nonce[word]);
                block.SetValue(kMeetEcho + word, 0);
            }
            for (uint32_t word = 0; word < kStatementWords; ++word)
                block.SetValue(kMeetStatement + word, meeting.statement[word]);
            met.SetValue(i, window_.Reached(peers_.begin + i) ? 0 : 1);
        }
        MOE_SYNC(S_MTE3);
        for (uint32_t i = 0; i < count; ++i) {
            if (met.GetValue(i) == 0) Say(MOE_FLAG("greeting"), i);
        }
        MOE_SYNC(MTE3_S);
    }

    __aicore__ inline void Say(FlagName what, uint32_t i) {
        if (PostDropped(what)) return;
        Store(At<uint32_t>(window_.Control(peers_.begin + i, Place(window_.rank))),
              said_.Get<uint32_t>()[i * kBlockWords], kBlockWords);
    }

    // Tells the peer what this rank has heard of it if that is new; 1 if the peer has heard of this
    // rank.
    __aicore__ inline uint32_t Answer(const LocalTensor<uint32_t>& block, uint32_t i) {
        if (block.GetValue(kMeetTag) != kMeetMagic) return 0;
        LocalTensor<uint32_t> said = said_.Get<uint32_t>()[i * kBlockWords];
        bool known = true, hears_me = true;
        for (uint32_t word = 0; word < 2; ++word) {
            known = known && said.GetValue(kMeetEcho + word) == block.GetValue(kMeetNonce + word);
            hears_me =
                hears_me && block.GetValue(kMeetEcho + word) == said.GetValue(kMeetNonce + word);
        }
        if (!known) {
            for (uint32_t word = 0; word < 2; ++word)
                said.SetValue(kMeetEcho + word, block.GetValue(kMeetNonce + word));
            MOE_SYNC(S_MTE3);
            Say(MOE_FLAG("answer"), i);
            MOE_SYNC(MTE3_S);
        }
        return hears_me ? 1 : 0;
    }

    Window window_;
    Share peers_;
    Buffer said_, heard_, met_;
};

}  // namespace ascend_moe
