// What the host and the kernels agree on: context, parameters, window layout. Plain C++, also
// included by host code, which includes <cstdint> before: device code includes nothing but
// kernel_operator.h, where the same types come from.
#pragma once

// The execution space of the functions below: shim.h says __aicore__ for device code.
#ifndef MOE_ABI
#define MOE_ABI
#endif

namespace ascend_moe {

constexpr uint32_t kContextMagic = 0x454f4d41;  // "AMOE"
// Of a context in whose place the group has another. Graphs that were captured with it find out.
constexpr uint32_t kRetiredMagic = 0x444c4f41;  // "AOLD"
constexpr uint32_t kAbiVersion = 4;
constexpr uint32_t kMaxRanks = 768;
constexpr uint32_t kBlockBytes = 32;   // the unit of a DMA write: an aligned block is written whole
constexpr uint32_t kPitchBytes = 512;  // rows in windows start here; one burst
constexpr uint32_t kMaxCores = 48;

// elastic_info: how a group of ep_size ranks goes on without some of them. This head, then the new
// number of each old rank, then the old number of each new one; -1 where there is none.
enum ElasticWord : uint32_t {
    kElasticScaled = 0,  // 0: nobody is gone, and nothing else counts
    kElasticRanks,
    kElasticSharedRanks,
    kElasticMoeExperts,
    kElasticNewOfOld
};
MOE_ABI constexpr uint32_t ElasticOldOfNew(uint32_t ep_size) { return kElasticNewOfOld + ep_size; }
MOE_ABI constexpr uint32_t ElasticWords(uint32_t ep_size) {
    return ElasticOldOfNew(ep_size) + ep_size;
}

// One per EP group and rank, in device memory, written by the host before the first launch.
// A group that goes on without some ranks gets a new one, of which those that are left have agreed:
// the ranks that are gone have no address in it, and `elastic` says who is left. Everything else
// counts the ranks of the whole group.
struct Context {
    uint32_t magic, version;
    uint32_t ep_rank, ep_size;
    uint32_t nonce;  // agreed by all ranks that are left; never 0
    uint32_t tp_rank, tp_size;
    uint32_t tp_nonce;                 // agreed by the two ranks of the TP pair
    uint64_t window_bytes;             // the smallest of all ranks, equal everywhere
    uint64_t own_window, own_control;  // those of ep_rank in the tables below
    uint64_t scaled;                   // 1: some ranks are gone, and `elastic` counts
    // Up to here a line of the scalar cache, which every core loads before anything else.
    uint64_t tp_window_bytes;
    uint64_t tp_window[2];  // by TP rank
    uint64_t window[kMaxRanks];
    // The first kControlBytes of the layout: the start of the window, or memory of its own where
    // HCCL offers some that its collectives never use.
    uint64_t control[kMaxRanks];
    // ElasticWords(ep_size) of them: what elastic_info has to say in every call. All 0: whole.
    int32_t elastic[ElasticWords(kMaxRanks)];
};

// Beside the context, of a group that spans servers. There `window` and `control` are 0 for a rank
// in another server: cores do not reach it. What goes to it starts in the own output buffer and is
// posted to a queue of the network card; its buffers and their keys are in the tables (rdma_abi.h).
struct CardContext {
    uint64_t queues;  // QueueTables
    uint64_t output;  // as large as a window
};

// kInt4x8: int32 x, eight int4 in a word, on A2. It travels as it is, and with each token the scale
// that the caller gave it.
enum class Element : uint32_t { kBfloat16 = 0, kFloat16 = 1, kInt4x8 = 2 };
enum class Mask : uint32_t { kNone = 0, kTokens = 1, kPairs = 2 };
// performance_info: how the microseconds that a launch waited for a rank meet those that are there.
enum class Waits : uint32_t { kUntold = 0, kLongest = 1, kAdded = 2 };

// Of GetSystemCycle, on A2 and A3: hiascend.com, Ascend C API, GetSystemCycle(ISASI), "50 MHz".
constexpr uint32_t kTicksPerMicrosecond = 50;

// Of one meeting and of the opening after it: docs/kernels.md, section 4, point 5. A statement is
// what this rank has decided; the host compares those of all ranks.
constexpr uint32_t kStatementWords = 3;
struct Meeting {
    uint32_t nonce[2];  // random, new for every meeting of every rank
    uint32_t statement[kStatementWords];
    uint32_t timeout_ticks;  // as in Parameters
};

// Words for the control areas of some ranks, told with one copy to each (tell.h).
constexpr uint32_t kTellingWords = 24;
struct Telling {
    uint32_t offset, count;
    uint32_t words[kTellingWords];
    uint32_t to[kMaxRanks / 32];  // a bit per rank
};

// Of one call.
struct Parameters {
    uint32_t batch;      // tokens of this rank
    uint32_t max_batch;  // the largest batch of all ranks
    uint32_t hidden;
    uint32_t topk;
    uint32_t moe_experts;
    uint32_t local_experts;   // of a MoE rank
    uint32_t shared_experts;  // effective: 0 unless there are shared ranks
    uint32_t shared_ranks;
    uint32_t zero_experts, copy_experts, const_experts;
    Element element;  // of x; of combine's rows
    Mask mask;
    uint32_t quant;              // dispatch: 1 for quant_mode 2
    uint32_t smooth;             // dispatch: smooth scales given
    uint32_t cumulative_counts;  // dispatch: expert_token_nums_type 0
    uint32_t capacity;           // dispatch: rows of expand_x
    uint32_t comm_quant;         // combine: 1 for comm_quant_mode 2
    uint32_t shared_x;           // combine: shared_expert_x given
    uint32_t tp;                 // 1 for tp_world_size 2
    Waits waits;                 // of this rank alone: others may not measure
    uint32_t timeout_ticks;      // of GetSystemCycle in units of 1024; 0 is no limit
};

// Of one tensor that has strides, with at most three dimensions.
struct Packing {
    uint32_t size[3];
    uint32_t element_bytes;
    uint64_t stride[3];  // in bytes
};

// Of the kernels of first_steps.h.
struct CoresProbe {
    uint32_t mark;  // of this launch
};
struct RowProbe {
    uint32_t timeout_ticks;  // as in Parameters
};
// Of the kernel of measure.h. Cores with an even number work on the window of `peer`, the others on
// that of `other`.
enum class Measured : uint32_t { kNothing = 0, kSyncAll, kLoads, kStores, kHops };
constexpr uint32_t kMeasureSlots = 8;
struct Measuring {
    Measured what;
    uint32_t peer, other;
    uint32_t turns;
    uint32_t bytes;  // of a copy, a multiple of 4; of kHops 0 (nothing is loaded) or kBlockBytes
    uint32_t mark;   // of this launch
};
enum MeasuredWord : uint32_t { kMeasuredMark = 0, kMeasuredTicks };
// What a core reports: three blocks, the second one counts its runs in word 0.
enum CoreBlock : uint32_t { kCoreBefore = 0, kCoreRuns, kCoreBehind };  // the SyncAll
constexpr uint32_t kCoreReportBytes = 3 * kBlockBytes;
// Words of the others. Behind the SyncAll the mark is what the next core had written before it.
enum CoreWord : uint32_t { kCoreMark = 0, kCoreIndex, kCoreBlocks, kCoreTicks };  // two words

// Layout of a window: see docs/kernels.md, section 2.
constexpr uint64_t kStateOffset = 0;
constexpr uint64_t kFailuresOffset =
    32;  // word 0: cores that have given up since `open`; not 0: broken
// {nonce, rank + 1}: told, with a failure, to a rank that others go on without.
constexpr uint64_t kLeftOutOffset = 64;
// {nonce, epoch} of a launch with a context that was retired.
constexpr uint64_t kRetiredOffset = 96;
constexpr uint64_t kErrorOffset = 512;         // one block per core
constexpr uint64_t kReturnedOffset = 2 << 10;  // the same: what it returns in combine is there
constexpr uint64_t kHelloOffset = 4 << 10;
constexpr uint64_t kReadyOffset = 28 << 10;
constexpr uint64_t kDoneOffset = 52 << 10;
constexpr uint64_t kMeetOffset = 76 << 10;
// The notes of the ranks that are left, when some are gone: from the opening on, in the place of
// the meeting. `open` leaves them, as it does hello.
constexpr uint64_t kNotesOffset = kMeetOffset;
constexpr uint64_t kCountsOffset = 128 << 10;  // two of them
constexpr uint64_t kCountsBytes = 64 << 10;
constexpr uint64_t kControlBytes = 256 << 10;

// A note: its head, then a bit per rank of the group.
constexpr uint32_t kNoteHeadWords = 5;
MOE_ABI constexpr uint32_t NoteWords(uint32_t ep_size) {
    return (kNoteHeadWords + (ep_size + 31) / 32 + 7) / 8 * 8;
}
// Whether there is room for one of each rank.
MOE_ABI constexpr bool NotesFit(uint32_t ep_size) {
    return NoteWords(ep_size) <= kTellingWords &&
           uint64_t{4} * NoteWords(ep_size) * ep_size <= kCountsOffset - kNotesOffset;
}

// Words of the state block.
enum StateWord : uint32_t {
    kStateNonce = 0,
    kStateDispatch,
    kStateCombine,
    kStateLastOp,
    kStateTp
};
enum LastOp : uint32_t { kLastNone = 0, kLastDispatch, kLastCombine };

// Words of an error record: nonce, epoch, who (rank of the whole group + 1; with TP the TP rank),
// in which operator (LastOp), with how many cores the TP rank came or which word of elastic_info it
// is, why, over which link, and what that word says.
enum ErrorWord : uint32_t {
    kErrorPeer = 2,
    kErrorOp,
    kErrorCores,
    kErrorReason,
    kErrorLink,
    kErrorSaid,
    kErrorIndex = kErrorCores
};
enum ErrorLink : uint32_t { kLinkServer = 0, kLinkNetwork };  // by which the peer is reached
enum ErrorReason : uint32_t {
    kAbsent = 0,  // the peer did not come within the time limit
    kOtherCores,  // the TP rank came with another number of cores
    kOtherCall,   // the peer came with other parameters
    kForeignUse,  // the state block is not ours any more: somebody else has written to the buffer
    kFullQueue,   // the queue to the peer had no room within the time limit
    kOtherRanks   // elastic_info says other than the context
};

// Words of a block of the meeting, which all versions of the ABI understand.
constexpr uint32_t kMeetMagic = 0x5445454d;  // "MEET"
enum MeetWord : uint32_t { kMeetTag = 0, kMeetNonce, kMeetEcho = 3, kMeetStatement = 5 };

constexpr uint32_t kTagWords = 2;  // nonce, epoch
constexpr uint32_t kBlockWords = kBlockBytes / 4;
constexpr uint32_t kPayloadWords = kBlockWords - kTagWords;

MOE_ABI constexpr uint32_t CeilDiv(uint32_t value, uint32_t by) { return (value + by - 1) / by; }
MOE_ABI constexpr uint32_t AlignUp(uint32_t value, uint32_t to) { return CeilDiv(value, to) * to; }

// A pair as one word of an index list.
constexpr uint32_t kSlotBits = 8;
MOE_ABI constexpr uint32_t PackPair(uint32_t token, uint32_t slot) {
    return token << kSlotBits | slot;
}

// Rows of dispatch.
MOE_ABI constexpr bool Packed(const Parameters& p) { return p.element == Element::kInt4x8; }
MOE_ABI constexpr bool HasScales(const Parameters& p) { return p.quant || Packed(p); }
MOE_ABI constexpr uint32_t RowBytes(const Parameters& p) {
    return p.hidden * (p.quant ? 1 : Packed(p) ? 4 : 2);
}

// Sizes inside the window that follow from the parameters.
MOE_ABI constexpr uint64_t StagePitch(const Parameters& p) {
    return AlignUp(RowBytes(p), kPitchBytes);
}
MOE_ABI constexpr uint32_t StageRowsPerToken(const Parameters& p) {
    return p.quant && p.smooth ? p.topk + p.shared_experts : 1;
}
MOE_ABI constexpr uint32_t ListRows(const Parameters& p) {
    return AlignUp(p.max_batch * (p.local_experts < p.topk ? p.local_experts : p.topk),
                   kBlockWords);
}
MOE_ABI constexpr uint64_t ListPitch(const Parameters& p) {
    return AlignUp(2 * 4 * ListRows(p), kPitchBytes);
}
// The index of a dispatch: in the window of a destination the pairs of every source, list behind
// list; in that of a source behind them the scales of what it has staged, a block for each token
// where there is room. No larger than lists with scales in them, unless a token has more slots than
// there are experts.
MOE_ABI constexpr uint64_t PairsBytes(const Parameters& p) { return 4 * ListRows(p); }
MOE_ABI constexpr uint32_t StagedScaleWords(const Parameters& p, uint32_t ep_size) {
    const uint32_t words = StageRowsPerToken(p), padded = AlignUp(words, kBlockWords);
    return padded * p.max_batch <= ep_size * ListRows(p) ? padded : words;
}
MOE_ABI constexpr uint64_t DispatchIndexBytes(const Parameters& p, uint32_t ep_size) {
    const uint64_t lists = ep_size * ListPitch(p), pairs = ep_size * PairsBytes(p),
                   scales = 4ull * p.max_batch * StagedScaleWords(p, ep_size);
    return pairs + scales < lists ? lists : AlignUp(pairs + scales, kPitchBytes);
}
// What the calls of all ranks must have in common, as one word that travels with the flags: ranks
// that disagree find out instead of reading each other's windows wrongly.
MOE_ABI constexpr uint32_t MarkOf(const Parameters& p) {
    const uint32_t common[] = {p.max_batch,
                               p.hidden,
                               p.topk,
                               p.moe_experts,
                               p.local_experts,
                               p.shared_experts,
                               p.shared_ranks,
                               p.zero_experts,
                               p.copy_experts,
                               p.const_experts,
                               p.quant,
                               p.smooth,
                               p.comm_quant,
                               p.tp,
                               static_cast<uint32_t>(p.element)};
    uint32_t mark = 2166136261u;
    for (uint32_t word : common) mark = (mark ^ word) * 16777619u;  // FNV, a word at a time
    return mark;
}
// Tagged blocks with the counts of one source: the rows in all, the mark, then those of every
// expert.
MOE_ABI constexpr uint32_t CountsBlocks(const Parameters& p) {
    return CeilDiv(p.local_experts + 2, kPayloadWords);
}
// Of all sources; no more than kCountsBytes for any legal group.
MOE_ABI constexpr uint64_t CountsBytes(const Parameters& p, uint32_t ep_size) {
    return static_cast<uint64_t>(ep_size) * CountsBlocks(p) * kBlockBytes;
}
// int8 combine: values, then one scale for 8 of them.
MOE_ABI constexpr uint32_t CommScaleOffset(const Parameters& p) {
    return AlignUp(p.hidden, kBlockBytes);
}
MOE_ABI constexpr uint64_t SlotPitch(const Parameters& p) {
    uint32_t bytes = p.comm_quant ? CommScaleOffset(p) + 2 * CeilDiv(p.hidden, 8) : 2 * p.hidden;
    return AlignUp(bytes, kPitchBytes);
}
MOE_ABI constexpr uint64_t DispatchBytes(const Parameters& p, uint32_t ep_size) {
    return p.max_batch * StageRowsPerToken(p) * StagePitch(p) + DispatchIndexBytes(p, ep_size);
}
MOE_ABI constexpr uint64_t CombineBytes(const Parameters& p) {
    return static_cast<uint64_t>(p.max_batch) * (p.topk + p.shared_experts) * SlotPitch(p);
}

// The data part of a window: two dispatch areas of a quarter each, then the row slots.
MOE_ABI constexpr uint64_t DispatchAreaBytes(uint64_t window_bytes) {
    return (window_bytes - kControlBytes) / 4 / kPitchBytes * kPitchBytes;
}
MOE_ABI constexpr uint64_t DispatchAreaOffset(uint64_t window_bytes, uint32_t parity) {
    return kControlBytes + parity * DispatchAreaBytes(window_bytes);
}
MOE_ABI constexpr uint64_t RowsOffset(uint64_t window_bytes) {
    return kControlBytes + 2 * DispatchAreaBytes(window_bytes);
}

// The smallest sufficient window.
MOE_ABI constexpr uint64_t WindowBytes(uint64_t dispatch_bytes, uint64_t combine_bytes) {
    uint64_t half_rows = (combine_bytes + 1) / 2;
    uint64_t area = (dispatch_bytes > half_rows ? dispatch_bytes : half_rows);
    return kControlBytes + 4 * ((area + kPitchBytes - 1) / kPitchBytes * kPitchBytes);
}

// The TP window: blocks {tp_nonce, TP epoch, number, cores}, the peer's prefix sums, then one ring
// of rows per core. The rank writes all of it into the window of the other. Both ranks of a pair
// launch with the same number of cores, or both launches end with an error record.
constexpr uint64_t kTpHeaderOffset = 0;    // number: rows of the peer
constexpr uint64_t kTpPrefixOffset = 512;  // the peer's ep_recv_counts
constexpr uint64_t kTpProducedOffset = 8
                                       << 10;  // one block per core; number: rows put into the ring
constexpr uint64_t kTpConsumedOffset =
    12 << 10;  // one block per core; number: rows taken out of the ring of the peer
constexpr uint64_t kTpRingsOffset = 16 << 10;
MOE_ABI constexpr uint64_t TpSlotPitch(uint32_t row_bytes) {
    return AlignUp(AlignUp(row_bytes, kBlockBytes) + kBlockBytes, kPitchBytes);
}
MOE_ABI constexpr uint64_t TpRingBytes(uint64_t tp_window_bytes, uint32_t cores) {
    return (tp_window_bytes - kTpRingsOffset) / cores / kPitchBytes * kPitchBytes;
}
// The smallest sufficient TP window: one row per core.
MOE_ABI constexpr uint64_t TpWindowBytes(uint32_t hidden, uint32_t cores) {
    return kTpRingsOffset + cores * TpSlotPitch(2 * hidden);
}

// Full mesh over several servers: words of a token in the table of scales, of the workspace, or the
// caller's own.
MOE_ABI constexpr uint32_t ScalePitchWords(const Parameters& p) {
    return Packed(p) ? 1 : AlignUp(StageRowsPerToken(p), kBlockWords);
}
// Private scratch of a launch. Dispatch, over several servers: the scales of staged rows. Combine:
// where this rank's own rows are, then the waits of all cores, an int64 for each rank.
MOE_ABI constexpr uint64_t DispatchWorkspace(const Parameters& p) {
    return p.quant ? 4ull * p.max_batch * ScalePitchWords(p) : 0;
}
MOE_ABI constexpr uint64_t WaitsOffset(const Parameters& p) {
    return static_cast<uint64_t>(kBlockBytes) * p.max_batch * (p.topk + p.shared_experts);
}
MOE_ABI constexpr uint32_t WaitsBytes(uint32_t ep_size) {
    return AlignUp(8 * ep_size, kBlockBytes);
}
MOE_ABI constexpr uint64_t CombineWorkspace(const Parameters& p) {
    return WaitsOffset(p) + (p.waits == Waits::kUntold ? 0 : WaitsBytes(kMaxRanks));
}

}  // namespace ascend_moe
