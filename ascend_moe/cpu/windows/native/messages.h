// Dispatch and combine between ranks that share no memory: each keeps an area of its own, and is
// sent what it would read of the others' shares. ../../distributed/exchange.py says how.
//
// A *message* is what a rank says about its call, and then a *block*: what its receiver would read.
// Blocks too large for that follow in messages of their own. Every message ends in its number.
// Nothing in it is trusted: each size is compared, unsigned, with what there is room for.
#pragma once

#include "combine.h"
#include "dispatch.h"

namespace moe {

constexpr int64_t kLine = 64;

struct alignas(kLine) Message {
    int64_t number;  // counted by group
    int64_t rows;    // for Python: how many it will send
    int64_t bytes;   // of the block
    int64_t apart;   // the sender's blocks follow in messages of their own
    Statement said;
};

struct Peer {
    int64_t sent, received;  // bytes that go to it, and that are ready to take what comes from it
    int64_t block, bytes;    // what came from it
    int64_t apart;           // its block follows
};

// A group without shared memory, as one process sees it.
struct Mail : Group {
    int64_t number;              // of the message that is on its way
    int64_t peers;               // address of Peer[ranks]
    int64_t room;                // for a message, unless its size was announced
    int64_t outgoing, capacity;  // address and bytes
    int64_t incoming;            // address; by rank, each with the bytes that are ready for it
    int64_t apart;               // some rank's blocks follow

    Peer& peer(int64_t of) const { return reinterpret_cast<Peer*>(peers)[of]; }
};

// Of a block with the number behind it.
inline int64_t length_of(int64_t bytes) { return (bytes + 8 + kLine - 1) / kLine * kLine; }

inline void end_message(char* message, int64_t length, int64_t number) {
    memcpy(message + length - 8, &number, 8);
}

// The room holds a message, and all of it has arrived.
inline bool is_complete(const char* message, uint64_t length, uint64_t room, int64_t number) {
    if (length > room || length < 8) return false;
    int64_t end;
    memcpy(&end, message + length - 8, 8);
    return end == number;
}

// Which rows of this rank's share each other rank wants, ascending.
using Lists = std::vector<std::vector<int32_t>>;

// ---- dispatch: what the tokens chose, their weights, the scales of rows, and rows

struct Chosen {
    int32_t tokens, weighted, smooth;
};

inline void list_rows(const Dispatch& op, Lists& rows) {
    const int64_t own = op.ranks().rank, width = op.smooth ? 1 : op.slots();
    const int32_t* lane = op.lanes(own);
    for (int64_t place = 0; place < op.bs * op.slots(); ++place) {
        if (lane[place] < 0) continue;
        const int64_t shared = lane[place] - op.moe_experts;
        auto& wanted = rows[shared < 0 ? op.shared_ranks + lane[place] / op.local_experts
                                       : shared * op.replicas + own % op.replicas];
        const auto row = static_cast<int32_t>(place / width);
        if (wanted.empty() || wanted.back() != row) wanted.push_back(row);
    }
}

inline int64_t block_bytes(const Dispatch& op, const Chosen& chosen, int64_t rows) {
    const int64_t words = op.slots() + chosen.weighted * op.topk;
    const int64_t scale = op.carries_scales ? sizeof(float) : 0;
    return static_cast<int64_t>(sizeof chosen) + 4 * chosen.tokens * words +
           rows * (op.row_bytes + scale);
}

inline int64_t block_bytes(const Dispatch& op, const std::vector<int32_t>& rows) {
    const Chosen chosen = {static_cast<int32_t>(op.bs), op.expert_scales != 0, op.smooth != 0};
    return rows.empty() ? 0 : block_bytes(op, chosen, rows.size());
}

inline int64_t most_bytes(const Dispatch& op) {
    return block_bytes(op, {static_cast<int32_t>(op.max_bs), 1, 1}, op.rows_per_rank());
}

inline char* append(char* at, const void* from, int64_t bytes) {
    memcpy(at, from, bytes);
    return at + bytes;
}

inline void write_block(const Dispatch& op, const std::vector<int32_t>& rows, char* at) {
    const int64_t own = op.ranks().rank;
    const Chosen chosen = {static_cast<int32_t>(op.bs), op.expert_scales != 0, op.smooth != 0};
    at = append(at, &chosen, sizeof chosen);
    at = append(at, op.lanes(own), op.bs * op.slots() * 4);
    if (chosen.weighted) at = append(at, op.weight(own), op.bs * op.topk * 4);
    if (op.carries_scales) {
        for (const int32_t row : rows) at = append(at, op.scale(own) + row, 4);
    }
    for (const int32_t row : rows) at = append(at, op.row(own, row), op.row_bytes);
}

inline bool take_in(Dispatch& op, int64_t source, const char* block, int64_t bytes) {
    Chosen chosen = {};
    int32_t* lane = op.lanes(source);
    if (bytes) {
        if (bytes < static_cast<int64_t>(sizeof chosen)) return false;
        memcpy(&chosen, block, sizeof chosen);
        const auto most = static_cast<uint64_t>(op.max_bs);
        if (static_cast<uint32_t>(chosen.tokens) > most || chosen.weighted >> 1 ||
            chosen.smooth >> (op.quantised ? 1 : 0) || bytes < block_bytes(op, chosen, 0)) {
            return false;
        }
        block += sizeof chosen;
        memcpy(lane, block, 4 * chosen.tokens * op.slots());
        block += 4 * chosen.tokens * op.slots();
    }
    const int64_t places = chosen.tokens * op.slots();
    std::fill(lane + places, lane + op.places_per_rank(), -1);
    op.given(source)[0] = chosen.weighted;
    op.given(source)[1] = chosen.smooth;

    thread_local std::vector<int32_t> rows;
    rows.clear();
    const int64_t width = chosen.smooth ? 1 : op.slots();
    const Dispatch::Here here(op);
    for (int64_t place = 0; here.from(source) && place < places; ++place) {
        const auto row = static_cast<int32_t>(place / width);
        if (here.local(lane[place]) < here.experts && (rows.empty() || rows.back() != row)) {
            rows.push_back(row);
        }
    }
    if (bytes != (bytes ? block_bytes(op, chosen, rows.size()) : 0)) return false;
    if (chosen.weighted) {
        memcpy(op.weight(source), block, 4 * chosen.tokens * op.topk);
        block += 4 * chosen.tokens * op.topk;
    }
    if (op.carries_scales) {
        for (const int32_t row : rows) {
            memcpy(op.scale(source) + row, block, 4);
            block += 4;
        }
    }
    for (const int32_t row : rows) {
        memcpy(op.row(source, row), block, op.row_bytes);
        block += op.row_bytes;
    }
    return true;
}

// ---- combine: how many rows, where they belong, and the rows

inline void list_rows(const Combine& op, Lists& rows) {
    const auto* triple = pointer<const int32_t>(op.assist_info);
    for (int32_t row = 0; row < op.rows_here(); ++row) rows[triple[3 * row]].push_back(row);
}

inline int64_t rows_begin(int64_t rows) { return (8 + 12 * rows + kLine - 1) / kLine * kLine; }

inline int64_t block_bytes(const Combine& op, const std::vector<int32_t>& rows) {
    const auto count = static_cast<int64_t>(rows.size());
    return count ? rows_begin(count) + count * op.row_bytes : 0;
}

inline int64_t most_bytes(const Combine& op) {
    return rows_begin(op.max_rows) + op.max_rows * op.row_bytes;
}

inline void write_block(const Combine& op, const std::vector<int32_t>& rows, char* block) {
    const auto count = static_cast<int64_t>(rows.size());
    const auto* triple = pointer<const int32_t>(op.assist_info);
    char* at = append(block, &count, 8);
    for (const int32_t row : rows) at = append(at, triple + 3 * row, 12);
    at = block + rows_begin(count);
    for (const int32_t row : rows) {
        at = append(at, pointer<const char>(op.expand_x) + row * op.row_bytes, op.row_bytes);
    }
}

// Rows stay where they have arrived.
inline bool take_in(Combine& op, int64_t source, const char* block, int64_t bytes) {
    int64_t rows = 0;
    if (bytes) {
        if (bytes < 8) return false;
        memcpy(&rows, block, 8);
        if (static_cast<uint64_t>(rows) > static_cast<uint64_t>(op.max_rows) ||
            bytes != rows_begin(rows) + rows * op.row_bytes) {
            return false;
        }
        memcpy(op.list(source), block + 8, 12 * rows);
    }
    const int64_t size = rows * op.row_bytes;
    op.sent(source) = {rows, rows != 0, 0, 0, size};
    const int64_t address = reinterpret_cast<int64_t>(block) + rows_begin(rows);
    pointer<Known>(op.known)[source] = {1, address, size};
    return true;
}

inline void keep_own(Dispatch& op) { op.publish(); }

inline void keep_own(Combine& op) {
    const int64_t own = op.ranks().rank, rows = op.rows_here();
    op.sent(own) = {rows, 0, 0, 0, 0};
    memcpy(op.list(own), pointer<const int32_t>(op.assist_info), 12 * rows);
}

}  // namespace moe
