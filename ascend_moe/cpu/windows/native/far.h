// The steps of a call between ranks that share no memory. Python carries the messages.
#pragma once

#include <algorithm>
#include <new>

#include "messages.h"

namespace moe {

// Writes this rank's messages, or when those are on their way the blocks that did not fit into
// them. False: there is no room for so much (`detail`).
template <typename Op>
bool write_messages(Op& op, Mail& mail, bool blocks_only) {
    thread_local Lists rows;
    rows.resize(mail.ranks);
    for (auto& some : rows) some.clear();
    list_rows(op, rows);
    rows[mail.rank].clear();  // they stay

    int64_t largest = 0, total = 0;
    for (const auto& some : rows) largest = std::max(largest, block_bytes(op, some));
    const int64_t head = sizeof(Message);
    const bool apart = length_of(head + largest) > mail.room;
    for (int64_t rank = 0; rank < mail.ranks; ++rank) {
        const int64_t bytes = block_bytes(op, rows[rank]);
        const int64_t sent = !blocks_only     ? length_of(head + (apart ? 0 : bytes))
                             : apart && bytes ? length_of(bytes)
                                              : 0;
        mail.peer(rank).sent = sent;
        total += sent;
    }
    op.detail = total;
    if (total > mail.capacity) return false;
    if (!blocks_only) mail.apart = apart;

    char* at = pointer<char>(mail.outgoing);
    for (int64_t rank = 0; rank < mail.ranks; ++rank) {
        const int64_t sent = mail.peer(rank).sent, bytes = block_bytes(op, rows[rank]);
        if (!sent) continue;
        char* block = at;
        if (!blocks_only) {
            auto* message = new (at) Message();
            message->number = mail.number;
            message->bytes = bytes;
            message->apart = apart;
            state(op, message->said);
            block += head;
        }
        if (bytes && apart == blocks_only) write_block(op, rows[rank], block);
        end_message(at, sent, mail.number);
        at += sent;
    }
    return true;
}

// Where the blocks are that came with the messages. False: `detail` sent something else.
template <typename Op>
bool read_messages(Op& op, Mail& mail) {
    const char* at = pointer<const char>(mail.incoming);
    for (int64_t rank = 0; rank < mail.ranks; at += mail.peer(rank++).received) {
        const auto& message = *reinterpret_cast<const Message*>(at);
        const int64_t bytes = message.apart ? 0 : message.bytes;
        op.detail = rank;
        if (message.number != mail.number ||
            static_cast<uint64_t>(bytes) > static_cast<uint64_t>(mail.room) ||
            !is_complete(at, length_of(sizeof(Message) + bytes), mail.room, mail.number)) {
            return false;
        }
        mail.peer(rank).block = reinterpret_cast<int64_t>(at) + sizeof(Message);
        mail.peer(rank).bytes = message.bytes;
        mail.peer(rank).apart = message.apart != 0;
        mail.apart = mail.apart || message.apart;
    }
    return true;
}

inline bool agrees(const Call& call, const Mail& mail) {
    Agreement agreement(call);
    const char* at = pointer<const char>(mail.incoming);
    for (int64_t rank = 0; rank < mail.ranks; at += mail.peer(rank++).received) {
        if (!agreement.allows(rank, reinterpret_cast<const Message*>(at)->said)) return false;
    }
    return agreement.holds();
}

// Makes room for the blocks that follow. False: `detail` announced more than there can be.
template <typename Op>
bool expect_blocks(Op& op, Mail& mail) {
    for (int64_t rank = 0; rank < mail.ranks; ++rank) {
        Peer& peer = mail.peer(rank);
        op.detail = rank;
        peer.received = 0;
        if (!peer.apart || !peer.bytes) continue;
        if (static_cast<uint64_t>(peer.bytes) > static_cast<uint64_t>(most_bytes(op))) return false;
        peer.received = length_of(peer.bytes);
    }
    return true;
}

template <typename Op>
bool read_blocks(Op& op, Mail& mail) {
    const char* at = pointer<const char>(mail.incoming);
    for (int64_t rank = 0; rank < mail.ranks; at += mail.peer(rank++).received) {
        Peer& peer = mail.peer(rank);
        if (!peer.received) continue;
        op.detail = rank;
        if (!is_complete(at, peer.received, peer.received, mail.number)) return false;
        peer.block = reinterpret_cast<int64_t>(at);
    }
    return true;
}

template <typename Op>
int64_t take_in_all(Op& op, const Mail& mail) {
    for (int64_t rank = 0; rank < mail.ranks; ++rank) {
        if (rank == mail.rank) continue;
        const Peer& peer = mail.peer(rank);
        op.detail = rank;
        if (!take_in(op, rank, pointer<const char>(peer.block), peer.bytes)) return kCorrupt;
    }
    const int64_t code = op.receive();
    return code == kReadInPlace ? kDone : code;  // what is read is this rank's alone
}

// Runs a call until it is done or Python has to look; kWaiting: for messages to be exchanged.
template <typename Op>
int64_t far_step(Op& op) {
    Mail& mail = *pointer<Mail>(op.group);
    switch (op.phase) {
        case kStart:
            if (!op.valid()) return kInvalid;
            keep_own(op);
            if (!write_messages(op, mail, false)) return kNotPublished;
            for (int64_t rank = 0; rank < mail.ranks; ++rank) {
                mail.peer(rank).received = rank == mail.rank ? mail.peer(rank).sent : mail.room;
            }
            op.phase = kFirstBarrier;
            return kWaiting;
        case kFirstBarrier:
            if (!read_messages(op, mail)) return kCorrupt;
            if (!agrees(op, mail)) return kLook;
            [[fallthrough]];
        case kJudged:
            if (!mail.apart) return take_in_all(op, mail);
            if (!expect_blocks(op, mail)) return kCorrupt;
            op.phase = kPublish;
            [[fallthrough]];
        case kPublish:
            if (!write_messages(op, mail, true)) return kNotPublished;
            op.phase = kSecondBarrier;
            return kWaiting;
        default:
            if (!read_blocks(op, mail)) return kCorrupt;
            return take_in_all(op, mail);
    }
}

}  // namespace moe
