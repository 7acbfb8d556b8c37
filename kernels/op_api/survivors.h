// A group goes on without some of its ranks: what ascend_moe.shrink asks of this library, by ctypes
// (ascend_moe/npu/library.py). The protocol, and why it may be trusted, is docs/elastic.md; here
// are its means, each for a group that this process has opened on the current device:
//
//   failure  whether all launches up to now have ended well
//   tell     a few words into the control areas of some ranks' windows, by a kernel (device/tell.h)
//   hear     the notes that other ranks have told, from the own window
//   reopen   a context without the ranks that are gone, which those that are left open together
//
// Nothing here needs a process that died, the rendezvous store or HCCL.
//
// A function returns 0, or a status and a text in `problem` (1024 bytes). None may be called while
// a stream is being captured into a graph.
#pragma once

#include <cstdint>

extern "C" {

// A group as it is now, and what its last call said of it.
struct ascend_moe_members {
    uint32_t ranks, rank;
    uint32_t ours;        // 0: CANN's own operators serve it
    uint32_t a2, tp;      // 1: on A2; with tp_world_size 2
    uint32_t hierarchy;   // 1: that is its algorithm
    uint32_t note_words;  // of a note of each rank; 0: the control area has no room for so many
    uint32_t note_tag;    // of the notes of this group: the nonce of its first context
    int64_t moe_expert_num, shared_expert_num, shared_expert_rank_num;  // 0 experts: no call yet
};

// Also waits for all launches on the device; they end within their time limit. Status 1: this
// process knows no such group.
int ascend_moe_group_members(const char* group, struct ascend_moe_members* members, char* problem);

// Status 2 and a text when a launch on the group has given up; `waited`: a byte per rank, 1 for
// those that it has waited for.
int ascend_moe_group_failure(const char* group, uint8_t* waited, char* problem);

// `note`: note_words words. `to`: a byte per rank.
int ascend_moe_group_tell(const char* group, const uint32_t* note, const uint8_t* to,
                          char* problem);

// `notes`: note_words words of each rank, as they are: half written, or of an earlier group.
// `dead`: 1 for each rank whose process is known to have ended. Only the virtual NPU knows any.
int ascend_moe_group_hear(const char* group, uint32_t* notes, uint8_t* dead, char* problem);

// `elastic_info`: who is left. `nonce`: of the new context, the same on all of them and never used
// before. `missing`: a byte per rank, 1 for those who did not come within `limit_ms`, with
// status 2. Whatever it ends in, the context of before is retired, and the ranks that are not left
// are told.
int ascend_moe_group_reopen(const char* group, const int32_t* elastic_info, uint32_t nonce,
                            int64_t limit_ms, uint8_t* missing, char* problem);

}  // extern "C"
