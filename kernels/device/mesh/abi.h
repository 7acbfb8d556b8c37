// Full mesh over several servers of A2: how its windows are laid out. docs/kernels-mesh.md,
// section 2. Plain C++, also included by host code.
#pragma once

#include "../hierarchy/abi.h"

namespace ascend_moe {

constexpr uint32_t kMeshRanks = 256;

// Input and output have one layout: what comes from a rank of another server lies in the input
// where what goes to it lies in the output. Only what a card or a mate never writes is in one of
// them alone.

// Control area. A tag from rank r arrives in block r; the tags for rank r start in two blocks of
// the output, for even and for odd launches.
MOE_ABI constexpr uint64_t MeshTagOffset(uint32_t parity, uint32_t peer) {
    return kArrivedOffset + (parity * kMeshRanks + peer) * kBlockBytes;
}
// Those of the opening start in blocks of their own, where only mates write in an input.
MOE_ABI constexpr uint64_t MeshOpenTagOffset(TagSource source, uint32_t peer) {
    return (source == TagSource::kGreeting ? kReadyOffset : kDoneOffset) + peer * kBlockBytes;
}

// The rest is two halves, used in turn by launches of either operator.
MOE_ABI constexpr uint64_t MeshHalfBytes(uint64_t window_bytes) {
    return (window_bytes - kControlBytes) / 2 / kPitchBytes * kPitchBytes;
}
MOE_ABI constexpr uint64_t MeshHalf(uint64_t window_bytes, uint32_t parity) {
    return kControlBytes + parity * MeshHalfBytes(window_bytes);
}

// Rows between two ranks: dense, in the order of the list.
MOE_ABI constexpr uint64_t MeshRowsBytes(const Parameters& p, uint32_t row_bytes) {
    return (static_cast<uint64_t>(ListRows(p)) * row_bytes + kPitchBytes - 1) / kPitchBytes *
           kPitchBytes;
}

// A half in a dispatch: the stage for the mates, rows of all ranks of other servers, lists.
MOE_ABI constexpr uint64_t MeshStageBytes(const Parameters& p) {
    return static_cast<uint64_t>(p.max_batch) * StageRowsPerToken(p) * StagePitch(p);
}
// Of rank `peer`, in a window of `server`.
MOE_ABI constexpr uint64_t MeshRowsOffset(const Parameters& p, uint32_t per_server, uint32_t server,
                                          uint32_t peer) {
    return MeshStageBytes(p) +
           (peer < server * per_server ? peer : peer - per_server) * MeshRowsBytes(p, RowBytes(p));
}
MOE_ABI constexpr uint64_t MeshListsOffset(const Parameters& p, uint32_t per_server,
                                           uint32_t ranks) {
    return MeshStageBytes(p) + (ranks - per_server) * MeshRowsBytes(p, RowBytes(p));
}
MOE_ABI constexpr uint64_t MeshDispatchBytes(const Parameters& p, uint32_t per_server,
                                             uint32_t ranks) {
    return MeshListsOffset(p, per_server, ranks) + ranks * ListPitch(p);
}

// A half in a combine: rows of all ranks.
MOE_ABI constexpr uint64_t MeshReturnedOffset(const Parameters& p, uint32_t peer) {
    return peer * MeshRowsBytes(p, 2 * p.hidden);
}
MOE_ABI constexpr uint64_t MeshCombineBytes(const Parameters& p, uint32_t ranks) {
    return MeshReturnedOffset(p, ranks);
}

// The smallest sufficient window.
MOE_ABI constexpr uint64_t MeshWindowBytes(uint64_t dispatch_bytes, uint64_t combine_bytes) {
    const uint64_t area = dispatch_bytes > combine_bytes ? dispatch_bytes : combine_bytes;
    return kControlBytes + 2 * ((area + kPitchBytes - 1) / kPitchBytes * kPitchBytes);
}

}  // namespace ascend_moe
