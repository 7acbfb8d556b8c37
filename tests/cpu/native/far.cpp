// Ranks without shared memory, stepped in turn, for the sanitizers: every result is checked; then
// words of one rank's messages are changed on their way, of which nothing may come but errors.
// Usage: far RANKS CALLS SEED
#include <algorithm>
#include <memory>

#include "../../../ascend_moe/cpu/windows/native/messages.h"
#include "calls.h"

extern "C" {
int64_t moe_far_dispatch(moe::Dispatch* call);
int64_t moe_far_combine(moe::Combine* call);
}

namespace {

int64_t step(moe::Dispatch& call) { return moe_far_dispatch(&call); }
int64_t step(moe::Combine& call) { return moe_far_combine(&call); }

moe::Mail mail_of(int64_t ranks, int64_t rank, std::vector<moe::Peer>& peers) {
    moe::Mail mail = {};
    mail.ranks = ranks;
    mail.rank = rank;
    mail.peers = address(peers);
    return mail;
}

struct Process {
    Process(int64_t ranks, int64_t rank)
        : peers(ranks), mail(mail_of(ranks, rank, peers)), known(ranks), own(mail) {}
    std::vector<moe::Peer> peers;
    moe::Mail mail;
    std::vector<moe::Known> known;
    Rank own;
    std::unique_ptr<Memory> area, outgoing;
    std::vector<std::unique_ptr<Memory>> incoming;  // of one call
};

struct World {
    World(int64_t size, unsigned seed) : random(seed) {
        for (int64_t rank = 0; rank < size; ++rank) {
            processes.push_back(std::make_unique<Process>(size, rank));
        }
    }

    // Carries all messages; those of `liar` are changed.
    void carry(int64_t liar) {
        std::vector<const char*> from;
        for (auto& sender : processes)
            from.push_back(reinterpret_cast<char*>(sender->mail.outgoing));
        for (auto& receiver : processes) {
            int64_t size = 0;
            for (const moe::Peer& peer : receiver->peers) size += peer.received;
            receiver->incoming.push_back(std::make_unique<Memory>(size));
            char* to = receiver->incoming.back()->at;
            receiver->mail.incoming = reinterpret_cast<int64_t>(to);
            for (size_t sender = 0; sender < processes.size(); ++sender) {
                const int64_t sent = processes[sender]->mail.peer(receiver->mail.rank).sent;
                const int64_t ready = receiver->peers[sender].received;
                if (sent > ready && liar < 0) fail("no room for a message", receiver->mail.rank, 0);
                memcpy(to, from[sender], std::min(sent, ready));
                if (static_cast<int64_t>(sender) == liar && receiver->mail.rank != liar) {
                    change(to, std::min(sent, ready));
                }
                from[sender] += sent;
                to += ready;
            }
        }
    }

    // A word or two, most often of those with which messages and blocks begin; never the last.
    void change(char* message, int64_t bytes) {
        const int64_t words[] = {0, 1, -1, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, 64};
        for (unsigned i = 1 + random() % 2; i && bytes > 16; --i) {
            const int64_t size = random() % 2 ? 4 : 8, last = bytes - 16;
            const int64_t heads[] = {32, sizeof(moe::Message) + 16, 800, last};
            const int64_t most = std::min<int64_t>(last, heads[random() % 4]);
            const int64_t word =
                random() % 3 ? words[random() % 8] : static_cast<int64_t>(random());
            const int64_t first = most == heads[1] ? heads[1] - 16 : 0;
            memcpy(message + first + random() % ((most - first) / size + 1) * size, &word, size);
        }
    }

    // One call of all ranks; its codes.
    template <typename Op>
    std::vector<int64_t> run(std::vector<Op>& calls, int64_t liar) {
        const auto room = static_cast<int64_t>(random() % 2 ? 1 << 16 : sizeof(moe::Message) + 64);
        std::vector<int64_t> codes(calls.size(), moe::kWaiting);
        ++number;
        for (size_t rank = 0; rank < calls.size(); ++rank) {
            Process& process = *processes[rank];
            process.incoming.clear();
            process.mail.number = number;
            process.mail.room = room;
            calls[rank].phase = moe::kStart;
            process.area = std::make_unique<Memory>(Rank::bytes(calls[rank]));
            calls[rank].base = reinterpret_cast<int64_t>(process.area->at);
        }
        for (int turn = 0; turn < 3; ++turn) {
            for (size_t rank = 0; rank < calls.size(); ++rank) {
                if (codes[rank] == moe::kWaiting) codes[rank] = advance(calls[rank], rank);
            }
            if (turn < 2) carry(liar);
        }
        return codes;
    }

    template <typename Op>
    int64_t advance(Op& op, size_t rank) {
        Process& process = *processes[rank];
        for (;;) {
            const int64_t code = step(op);
            if (code == moe::kNotPublished) {
                process.outgoing = std::make_unique<Memory>(op.detail);
                process.mail.outgoing = reinterpret_cast<int64_t>(process.outgoing->at);
                process.mail.capacity = process.outgoing->bytes;
            } else if (code == moe::kLook && random() % 2) {
                op.phase = moe::kJudged;  // as if the difference were harmless
            } else {
                return code;
            }
        }
    }

    std::vector<moe::Dispatch> dispatches(bool quantised) {
        std::vector<moe::Dispatch> calls;
        for (auto& one : processes) calls.push_back(one->own.dispatch(quantised));
        return calls;
    }

    std::vector<moe::Combine> combines() {
        std::vector<moe::Combine> calls;
        for (auto& one : processes) {
            calls.push_back(one->own.combine());
            calls.back().known = address(one->known);
        }
        return calls;
    }

    template <typename Op>
    void check(std::vector<Op> calls, int64_t call, bool contents = true) {
        const auto codes = run(calls, -1);
        for (size_t rank = 0; rank < codes.size(); ++rank) {
            if (codes[rank]) fail("unexpected code", rank, codes[rank]);
            if (contents) processes[rank]->own.check(calls[rank], call);
        }
    }

    template <typename Op>
    void lie(std::vector<Op> calls) {
        const auto liar = static_cast<int64_t>(random() % calls.size());
        for (const int64_t code : run(calls, liar)) {
            ++found[code];
            if (code == moe::kCorrupt || code == moe::kLook || code == moe::kBadRows) continue;
            if (code != moe::kDone && code != moe::kWaiting) fail("unexpected code", liar, code);
        }
    }

    std::mt19937 random;
    int64_t number = 0, found[16] = {};
    std::vector<std::unique_ptr<Process>> processes;
};

}  // namespace

int main(int count, char** words) {
    if (count != 4) return 2;
    World world(atol(words[1]), static_cast<unsigned>(atol(words[3])));
    for (int64_t call = 0; call < atol(words[2]); ++call) {
        for (auto& one : world.processes) one->own.draw(call, world.random);
        world.check(world.dispatches(true), call, false);
        world.lie(world.dispatches(call % 2));
        world.check(world.dispatches(false), call);
        world.lie(world.combines());
        world.check(world.combines(), call);
    }
    if (!world.found[moe::kCorrupt] || !world.found[moe::kLook] || !world.found[moe::kDone]) {
        fail("lies of few kinds", 0, 0);
    }
    puts("ok");
}
