// How large CANN's own kernels want the HCCL buffer to be.
#pragma once

#include "../../op_api/entry/world.h"

namespace ascend_moe {

// The bytes of one HCCL buffer that CANN's A3 kernels need. Full mesh: two halves, each with a slot
// for every row that a rank can receive and for every row that can come home. Source: tiling of
// MoeDistributeDispatchV2 and CombineV2, ops-transformer 05c401f9d. `spread` is comm_alg
// fullmesh_v2 in dispatch, which stores 480 bytes per 512.
int64_t RequiredWindowBytes(const World& world, int64_t max_batch, int64_t hidden, int64_t topk,
                            bool spread);

// On A3 an error when the group's buffer is smaller; CANN only warns on A2, where the exchange
// itself fails when its rows do not fit.
int CheckWindow(const char* op, const World& world, const Attributes& attributes, int64_t batch,
                int64_t hidden, int64_t topk, bool spread);

}  // namespace ascend_moe
