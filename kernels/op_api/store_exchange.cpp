// ascend_moe_open_group: Python opens a group, and words travel through its rendezvous store
// (agreement.h, ascend_moe/opening.py). Called by ctypes on a thread of Python and without its
// lock, which the callback takes again; never from torch_npu's queue.
#include "agreement.h"
#include "entry/calls.h"
#include "group.h"
#include "report.h"

extern "C" {

// Puts `word` (256 bytes) into the store and collects those of all ranks into `words`. `ranks`
// comes with the room there is and goes with the size of the group. The word of a rank that did not
// come within `limit_s` seconds stays zero. A text in `problem` (1024 bytes) says what else went
// wrong.
typedef void (*ascend_moe_exchange)(const char* group, const ascend_moe::Word* word,
                                    int64_t limit_s, ascend_moe::Word* words, uint32_t* ranks,
                                    char* problem);

struct ascend_moe_opening {
    const char* op;  // the call that is about to be made
    const char* group_ep;
    int64_t ep_world_size, ep_rank_id;
    const char* group_tp;
    int64_t tp_world_size, tp_rank_id;
    const char* comm_alg;
};

// Opens the group of a call that is about to be made, if it is not open. 1 when it is decided now,
// 0 when that has to wait for a call outside of a graph capture. Whatever opening ended in, the
// call itself tells: this function has no text of its own.
__attribute__((visibility("default"))) int ascend_moe_open_group(const ascend_moe_opening* opening,
                                                                 ascend_moe_exchange exchange) {
    using ascend_moe::Heard;
    using ascend_moe::Word;
    ascend_moe::Attributes attributes;
    attributes.group_ep = opening->group_ep;
    attributes.ep_world_size = opening->ep_world_size;
    attributes.ep_rank_id = opening->ep_rank_id;
    attributes.group_tp = opening->group_tp;
    attributes.tp_world_size = opening->tp_world_size;
    attributes.tp_rank_id = opening->tp_rank_id;
    attributes.comm_alg = opening->comm_alg;
    const auto through_store = [exchange](const std::string& group, const Word& own,
                                          int64_t limit_s) {
        constexpr uint32_t kRoom = 4096, kProblemBytes = 1024;
        Heard heard{std::vector<Word>(kRoom), ""};
        uint32_t ranks = kRoom;
        char problem[kProblemBytes] = {};
        exchange(group.c_str(), &own, limit_s, heard.words.data(), &ranks, problem);
        heard.words.resize(ranks);
        heard.problem = problem;
        return heard;
    };
    const bool decided = ascend_moe::Group::Decide(opening->op, attributes, through_store);
    ascend_moe::TakeText();
    return decided ? 1 : 0;
}

}  // extern "C"
