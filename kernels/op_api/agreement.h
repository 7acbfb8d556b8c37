// Before anything of ours happens in a group, its ranks agree whether it is to be ours.
//
// A rank may be unable to serve a group that the others could: ASCEND_MOE_KERNELS=off, another
// version of this library, an HCCL that refuses its windows. If the others began without it they
// would wait for it in vain, so every rank first says one *word*, ours or stock and why, to all:
//
//   round 1   before anything collective of ours, from what the rank knows by itself
//   round 2   when its windows were found, or were not
//
// A rank goes on to the next step only if all have said "ours". One "stock" sends all to CANN's
// operators, and so does a difference between the versions of the library. With TP a rank asks its
// TP peer first and takes its answer into the EP group, so both EP groups learn of all ranks.
//
// How words travel is an Exchange: through the rendezvous store of torch.distributed where
// ascend_moe's Python offers one (store_exchange.cpp), else by HcclAllGather on the group itself
// (hccl_exchange.cpp). docs/kernel-library.md says what each costs.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace ascend_moe {

constexpr uint32_t kWordMagic = 0x44524f57;  // "WORD"
constexpr uint32_t kWordFormat = 1;

enum class Verdict : uint32_t {
    kOurs = 1,
    kStock = 2,
    kNeither = 3,  // this rank's call ends in an error, whoever would serve it
};

// What a rank says. Later formats append: the fields here keep their places and meanings, so that
// libraries of different age understand each other. ascend_moe/opening.py writes one, too.
struct Word {
    uint32_t magic;  // 0: nothing was said
    uint32_t format;
    uint32_t round;
    Verdict verdict;
    uint32_t library;  // kAbiVersion of the library; 0: there is none
    uint32_t require;  // 1: ASCEND_MOE_KERNELS=require
    uint32_t nonce;    // round 2, of a group in several servers: random; else 0
    uint32_t window;   // beside it, the size of its window in kPitchBytes
    char why[224];     // ASCII, ends in 0; cut off if need be
};
static_assert(sizeof(Word) == 256, "part of the agreement between versions");

Word Say(uint32_t round, Verdict verdict, bool require, const std::string& why);

// Gives `own` to all ranks of the group and returns theirs, rank by rank, within `limit_s`. A word
// without the magic did not arrive; `problem`, empty when all is well, is what else is known about
// why. No words at all: this CANN has no way to exchange any.
struct Heard {
    std::vector<Word> words;
    std::string problem;
};
using Exchange = std::function<Heard(const std::string& group, const Word& own, int64_t limit_s)>;

// What all ranks come to, the same everywhere.
struct Decision {
    Verdict verdict = Verdict::kOurs;
    std::string why;       // with the ranks that say so; empty when it is ours
    std::string required;  // ranks with ASCEND_MOE_KERNELS=require; empty: none
    uint32_t nonce = 0;    // made from those of all words
    bool wanted = false;   // some rank has not said stock
};

// A number that is the same on all ranks which have learnt these. Never 0.
uint32_t NonceOf(const std::vector<uint32_t>& numbers);

// One round in one group. `parameter` named it. ACL_SUCCESS, or a status with a text that names the
// ranks whose words did not arrive.
int Agree(const char* op, const char* parameter, const std::string& group, const Word& own,
          int64_t limit_s, const Exchange& exchange, Decision* decision);

// "rank 3", "ranks 3, 5 and 9 more"
std::string Names(const std::vector<uint32_t>& ranks);

// By HcclAllGather on the communicator of that name.
Heard ThroughHccl(const std::string& group, const Word& own, int64_t limit_s);

}  // namespace ascend_moe
