// See agreement.h.
#include "agreement.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "device/abi.h"
#include "report.h"

namespace ascend_moe {
namespace {

// What was said, and by whom; in the order of the first rank that said it.
using Sayings = std::vector<std::pair<std::string, std::vector<uint32_t>>>;

template <typename Saying>
Sayings Collect(const std::vector<Word>& words, Saying saying) {
    Sayings sayings;
    for (uint32_t rank = 0; rank < words.size(); ++rank) {
        const std::string text = saying(words[rank]);
        if (text.empty()) continue;
        const auto same = [&text](const auto& entry) { return entry.first == text; };
        auto found = std::find_if(sayings.begin(), sayings.end(), same);
        if (found == sayings.end()) found = sayings.insert(sayings.end(), {text, {}});
        found->second.push_back(rank);
    }
    return sayings;
}

// "rank 3: ASCEND_MOE_KERNELS=off; ranks 4, 5: ..."
std::string Listed(const Sayings& sayings, size_t ranks) {
    constexpr size_t kShown = 3;
    std::string text;
    for (size_t i = 0; i < std::min(sayings.size(), kShown); ++i) {
        const auto& [saying, who] = sayings[i];
        const std::string names = who.size() == ranks && ranks > 1 ? "all ranks" : Names(who);
        text += (i == 0 ? "" : "; ") + names + ": " + saying;
    }
    return sayings.size() > kShown ? text + "; .." : text;
}

std::string WhyOf(const Word& word) {
    const std::string why(word.why, std::find(word.why, word.why + sizeof(word.why), '\0'));
    return why.empty() ? "no reason given" : why;
}

Decision Decide(const std::vector<Word>& words) {
    const auto told = [&words](Verdict verdict) {
        return Listed(Collect(words,
                              [verdict](const Word& word) {
                                  return word.verdict == verdict ? WhyOf(word) : "";
                              }),
                      words.size());
    };
    std::vector<uint32_t> requiring;
    for (uint32_t rank = 0; rank < words.size(); ++rank) {
        if (words[rank].require != 0) requiring.push_back(rank);
    }
    const std::string required = requiring.empty() ? "" : Names(requiring);
    const bool wanted = std::any_of(words.begin(), words.end(), [](const Word& word) {
        return word.verdict != Verdict::kStock;
    });
    for (Verdict verdict : {Verdict::kNeither, Verdict::kStock}) {
        const std::string why = told(verdict);
        if (!why.empty()) return {verdict, why, required, 0, wanted};
    }
    const Sayings versions = Collect(
        words, [](const Word& word) { return "library version " + std::to_string(word.library); });
    if (versions.size() > 1)
        return {Verdict::kStock, Listed(versions, words.size()), required, 0, wanted};
    std::vector<uint32_t> nonces;
    for (const Word& word : words) nonces.push_back(word.nonce);
    return {Verdict::kOurs, "", required, NonceOf(nonces), wanted};
}

// Empty when the windows of all ranks are alike.
std::string Difference(const std::vector<Word>& words, const Word& own) {
    std::vector<uint32_t> others;
    for (uint32_t rank = 0; rank < words.size(); ++rank) {
        if (words[rank].window != own.window) others.push_back(rank);
    }
    if (others.empty()) return "";
    return "window of group_ep in 512 bytes is " + std::to_string(own.window) + " here, " +
           std::to_string(words[others[0]].window) + " on " + Names(others);
}

}  // namespace

std::string Names(const std::vector<uint32_t>& ranks) {
    constexpr size_t kShown = 8;
    std::string text = ranks.size() == 1 ? "rank " : "ranks ";
    for (size_t i = 0; i < std::min(ranks.size(), kShown); ++i)
        text += (i == 0 ? "" : ", ") + std::to_string(ranks[i]);
    if (ranks.size() > kShown) text += " and " + std::to_string(ranks.size() - kShown) + " more";
    return text;
}

uint32_t NonceOf(const std::vector<uint32_t>& numbers) {
    uint64_t state = 0;
    for (uint32_t number : numbers) {  // splitmix64
        state += 0x9e3779b97f4a7c15 + number;
        state = (state ^ state >> 30) * 0xbf58476d1ce4e5b9;
        state = (state ^ state >> 27) * 0x94d049bb133111eb;
        state ^= state >> 31;
    }
    const uint32_t nonce = static_cast<uint32_t>(state ^ state >> 32);
    return nonce == 0 ? 1 : nonce;
}

Word Say(uint32_t round, Verdict verdict, bool require, const std::string& why) {
    Word word{};
    word.magic = kWordMagic;
    word.format = kWordFormat;
    word.round = round;
    word.verdict = verdict;
    word.library = kAbiVersion;
    word.require = require ? 1 : 0;
    snprintf(word.why, sizeof(word.why), "%s", why.c_str());
    for (char& c : word.why) {
        if (c != '\0' && (c < ' ' || c > '~')) c = ' ';
    }
    return word;
}

int Agree(const char* op, const char* parameter, const std::string& group, const Word& own,
          int64_t limit_s, const Exchange& exchange, Decision* decision) {
    const Heard heard = exchange(group, own, limit_s);
    if (heard.words.empty()) {  // the same on all ranks: nobody can ask anybody
        *decision = {Verdict::kStock, "the ranks cannot be asked: " + heard.problem, ""};
        return ACL_SUCCESS;
    }
    std::vector<uint32_t> missing, elsewhere;
    for (uint32_t rank = 0; rank < heard.words.size(); ++rank) {
        const Word& word = heard.words[rank];
        if (word.magic != kWordMagic) {
            missing.push_back(rank);
        } else if (word.round != own.round) {
            elsewhere.push_back(rank);
        }
    }
    if (!missing.empty()) {
        return Fail(kInnerError,
                    "%s: %s %s: no word from %s within %ld s about whose kernels to run (%s). A "
                    "rank that says nothing has died, has made no call yet, calls in another way "
                    "(through ascend_moe or not), or does not find the library of ascend_moe: run "
                    "ascend-moe doctor there",
                    op, parameter, group.c_str(), Names(missing).c_str(), limit_s,
                    heard.problem.c_str());
    }
    if (!heard.problem.empty()) {
        return Fail(kInnerError, "%s: the ranks of %s %s could not agree whose kernels to run: %s",
                    op, parameter, group.c_str(), heard.problem.c_str());
    }
    if (!elsewhere.empty()) {
        return Fail(kInnerError, "%s: %s of %s %s opens the group for another time than this one",
                    op, Names(elsewhere).c_str(), parameter, group.c_str());
    }
    *decision = Decide(heard.words);
    const std::string difference =
        decision->verdict == Verdict::kOurs ? Difference(heard.words, own) : "";
    if (difference.empty()) return ACL_SUCCESS;
    return Fail(kInnerError, "%s: ranks of %s %s differ: %s", op, parameter, group.c_str(),
                difference.c_str());
}

}  // namespace ascend_moe
