// What the host and the kernels for several servers agree on, besides ../abi.h: context, windows,
// index, handle. docs/kernels-hierarchy.md, section 3. Plain C++, also included by host code.
#pragma once

#include "../abi.h"

namespace ascend_moe {

// The build switch of docs/kernels-hierarchy.md, section 8: whether the relay copies the rows that
// the card has written before its mates read them.
constexpr bool kRelayCopies = true;

constexpr uint32_t kMaxServers = 16;

// As Context, and what lies between servers. `group.window` and `group.control` have the input
// windows of the mates; those of other servers are not used, the queue tables know them.
struct HierarchyContext {
    Context group;
    uint32_t ranks_per_server;
    uint32_t sums_by_expert;  // a server adds the rows of a token by expert id, not by k
    uint64_t output;          // the own output window
    uint64_t queues;          // QueueTables (../rdma_abi.h)
};

// Control area: block r is written by rank r of the rail.
constexpr uint64_t kArrivedOffset = 100 << 10;

// Sources of tags, at the start of the output window: a block for each kind and server.
enum class TagSource : uint32_t {
    kGreeting = 0,
    kAnswer,
    kReady,
    kDone,
    kArrived  // two of them
};
constexpr uint64_t kTagSourcesBytes = 4 << 10;
MOE_ABI constexpr uint64_t TagSourceOffset(TagSource source, uint32_t parity, uint32_t server) {
    return ((static_cast<uint32_t>(source) + parity) * kMaxServers + server) * kBlockBytes;
}

// How a group lies in servers, as one of its ranks sees it.
struct Topology {
    uint32_t servers, per_server;
    uint32_t server, number;  // of this rank
};
// The place of another server among all others.
MOE_ABI constexpr uint32_t OtherServer(uint32_t server, uint32_t own) {
    return server < own ? server : server - 1;
}

// Rows as they cross to another server: dense, a multiple of kBlockBytes.
MOE_ABI constexpr uint32_t TokenBytes(const Parameters& p) { return p.hidden * (p.quant ? 1 : 2); }
MOE_ABI constexpr uint64_t TokenAreaBytes(const Parameters& p) {
    return AlignUp(p.max_batch * TokenBytes(p), kPitchBytes);
}
MOE_ABI constexpr uint32_t Smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

// The index of a server, in words: head, rows of every expert of the server, tokens that were sent,
// and for every row two words or three.
enum IndexWord : uint32_t { kIndexMark = 0, kIndexTokens, kIndexRows };
constexpr uint32_t kIndexCounts = kBlockWords;
MOE_ABI constexpr uint32_t ServerExperts(const Parameters& p, uint32_t per_server) {
    return per_server * p.local_experts;
}
MOE_ABI constexpr uint32_t IndexSent(const Parameters& p, uint32_t per_server) {
    return kIndexCounts + AlignUp(ServerExperts(p, per_server), kBlockWords);
}
MOE_ABI constexpr uint32_t SentWords(const Parameters& p) {
    return AlignUp(p.max_batch, kBlockWords);
}
MOE_ABI constexpr uint32_t IndexEntries(const Parameters& p, uint32_t per_server) {
    return IndexSent(p, per_server) + SentWords(p);
}
MOE_ABI constexpr uint32_t EntryWords(const Parameters& p) { return p.quant ? 3 : 2; }
MOE_ABI constexpr uint32_t IndexWords(const Parameters& p, uint32_t per_server) {
    return AlignUp(IndexEntries(p, per_server) +
                       p.max_batch * Smaller(p.topk, ServerExperts(p, per_server)) * EntryWords(p),
                   kBlockWords);
}
MOE_ABI constexpr uint64_t IndexBytes(const Parameters& p, uint32_t per_server) {
    return AlignUp(4 * IndexWords(p, per_server), kPitchBytes);
}

// A word of the tokens sent: the token, and the places of its rows in this server, a bit each. 0
// ends the list. The first word of a row: where its token is among those sent, the token, the
// place.
constexpr uint32_t kPlacesShift = 16, kTokenMask = (1 << kPlacesShift) - 1;
constexpr uint32_t kEntryBits = 10, kEntryMask = (1 << kEntryBits) - 1;
MOE_ABI constexpr uint32_t PackEntry(uint32_t position, uint32_t token, uint32_t place) {
    return position | token << kEntryBits | place << 2 * kEntryBits;
}

// The list that a mate gets: its part of an index.
MOE_ABI constexpr uint32_t MateRows(const Parameters& p) {
    return p.max_batch * Smaller(p.local_experts, p.topk);
}
MOE_ABI constexpr uint64_t MateListPitch(const Parameters& p) {
    return AlignUp(4 * EntryWords(p) * MateRows(p), kPitchBytes);
}

// The handle, behind the prefix sums of ep_recv_counts, in words: (token, place) of every received
// row; tokens that this rank relays, per server; where the sum of each own token will lie, plus
// one, or 0, per server.
MOE_ABI constexpr uint32_t HandleRelayed(const Parameters& p, uint32_t ep_size) {
    return p.moe_experts + 2 * ep_size * MateRows(p);
}
MOE_ABI constexpr uint32_t HandleSums(const Parameters& p, const Topology& t, uint32_t ep_size) {
    return HandleRelayed(p, ep_size) + t.servers * SentWords(p);
}
MOE_ABI constexpr uint32_t HandleWords(const Parameters& p, const Topology& t, uint32_t ep_size) {
    return HandleSums(p, t, ep_size) + t.servers * SentWords(p);
}

// A slot: a row and the block with its weight.
MOE_ABI constexpr uint64_t ServerSlotPitch(const Parameters& p) {
    return AlignUp(2 * p.hidden + kBlockBytes, kPitchBytes);
}
MOE_ABI constexpr uint64_t ServerSlot(const Parameters& p, uint32_t server, uint32_t token,
                                      uint32_t place) {
    return (static_cast<uint64_t>(server * p.max_batch + token) * p.topk + place) *
           ServerSlotPitch(p);
}

// A server's sums: a head, then rows; as int8 the values, then a scale for each block of 8
// (bfloat16) or 16.
constexpr uint64_t kSumsRows = kPitchBytes, kSumsHead = kSumsRows - kBlockBytes;
enum SumsWord : uint32_t { kSumsMark = 0, kSumsTokens };
MOE_ABI constexpr uint32_t SumBlock(const Parameters& p) {
    return p.element == Element::kBfloat16 ? 8 : 16;
}
MOE_ABI constexpr uint32_t SumBytes(const Parameters& p) {
    return p.comm_quant
               ? CommScaleOffset(p) + AlignUp(2 * CeilDiv(p.hidden, SumBlock(p)), kBlockBytes)
               : 2 * p.hidden;
}
MOE_ABI constexpr uint64_t SumsBytes(const Parameters& p) {
    return kSumsRows + AlignUp(p.max_batch * SumBytes(p), kPitchBytes);
}

// Input window: control, two halves of a fifth of the rest, then slots and sums.
MOE_ABI constexpr uint64_t InputHalfBytes(uint64_t window_bytes) {
    return (window_bytes - kControlBytes) / 5 / kPitchBytes * kPitchBytes;
}
MOE_ABI constexpr uint64_t InputHalf(uint64_t window_bytes, uint32_t parity) {
    return kControlBytes + parity * InputHalfBytes(window_bytes);
}
// Areas inside a half. What a card writes for `server`, then what mates read: one area if the relay
// does not copy.
MOE_ABI constexpr uint64_t StageOffset(const Parameters& p, const Topology& t, uint32_t server) {
    return (kRelayCopies ? t.servers - 1 + server : server) * TokenAreaBytes(p);
}
MOE_ABI constexpr uint64_t ReceivedOffset(const Parameters& p, const Topology& t, uint32_t own,
                                          uint32_t server) {
    return kRelayCopies ? OtherServer(server, own) * TokenAreaBytes(p) : StageOffset(p, t, server);
}
MOE_ABI constexpr uint64_t InputIndexOffset(const Parameters& p, const Topology& t,
                                            uint32_t server) {
    return StageOffset(p, t, t.servers) + server * IndexBytes(p, t.per_server);
}
MOE_ABI constexpr uint64_t MateListOffset(const Parameters& p, const Topology& t, uint32_t source) {
    return InputIndexOffset(p, t, t.servers) + source * MateListPitch(p);
}
MOE_ABI constexpr uint64_t HierarchyDispatchBytes(const Parameters& p, const Topology& t) {
    return MateListOffset(p, t, t.servers * t.per_server);
}
MOE_ABI constexpr uint64_t ServerSlotsOffset(uint64_t window_bytes) {
    return kControlBytes + 2 * InputHalfBytes(window_bytes);
}
MOE_ABI constexpr uint64_t InputSumsOffset(uint64_t window_bytes, const Parameters& p,
                                           const Topology& t, uint32_t server) {
    return ServerSlotsOffset(window_bytes) + ServerSlot(p, t.servers, 0, 0) + server * SumsBytes(p);
}
MOE_ABI constexpr uint64_t HierarchyCombineBytes(const Parameters& p, const Topology& t) {
    return ServerSlot(p, t.servers, 0, 0) + t.servers * SumsBytes(p);
}

// Output window: sources of tags, two halves with rows and index, sums; a third of the rest each.
MOE_ABI constexpr uint64_t OutputThird(uint64_t window_bytes, uint32_t third) {
    return kTagSourcesBytes +
           third * ((window_bytes - kTagSourcesBytes) / 3 / kPitchBytes * kPitchBytes);
}
MOE_ABI constexpr uint64_t OutputIndexOffset(const Parameters& p, const Topology& t,
                                             uint32_t server) {
    return (t.servers - 1) * TokenAreaBytes(p) + server * IndexBytes(p, t.per_server);
}

// The smallest sufficient window. The output needs less: its thirds hold parts of what a half of
// the input holds, or of the sums.
MOE_ABI constexpr uint64_t HierarchyWindowBytes(uint64_t dispatch_bytes, uint64_t combine_bytes) {
    const uint64_t third = (combine_bytes + 2) / 3;
    const uint64_t area = dispatch_bytes > third ? dispatch_bytes : third;
    return kControlBytes + 5 * ((area + kPitchBytes - 1) / kPitchBytes * kPitchBytes);
}

// Private scratch of a dispatch: per core the tokens of its share for each server, then the scales.
MOE_ABI constexpr uint64_t ScalesOffset() { return kMaxCores * kMaxServers * 4; }
MOE_ABI constexpr uint64_t HierarchyDispatchWorkspace(const Parameters& p) {
    return ScalesOffset() + static_cast<uint64_t>(kBlockBytes) * p.max_batch;
}

}  // namespace ascend_moe
