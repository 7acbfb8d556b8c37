// See stock_window.h.
#include "stock_window.h"

#include "../../op_api/report.h"
#include "standin.h"

namespace ascend_moe {
namespace {

int64_t AlignTo(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

}  // namespace

int64_t RequiredWindowBytes(const World& world, int64_t max_batch, int64_t hidden, int64_t topk,
                            bool spread) {
    const int64_t token_bytes = 2 * hidden;
    if (world.hierarchy()) {
        const int64_t words = 3 * (topk + 7) / 8 * 8;
        return world.moe_experts * max_batch * (token_bytes + 4 * words + 64) + (404 << 20);
    }
    const int64_t row_bytes = AlignTo(token_bytes, 32) + 64;
    const int64_t slot_bytes = spread ? (row_bytes + 479) / 480 * 512 : AlignTo(row_bytes, 512);
    const int64_t rows_out = world.local_experts() * max_batch * world.ranks;
    const int64_t rows_home = (topk + world.shared_experts) * max_batch;
    return 2 * (rows_out * slot_bytes + rows_home * AlignTo(token_bytes, 512));
}

int CheckWindow(const char* op, const World& world, const Attributes& a, int64_t batch,
                int64_t hidden, int64_t topk, bool spread) {
    if (world.a2) return ACL_SUCCESS;
    const int64_t have = standin::Group::Find(a.group_ep)->window(a.ep_rank_id).bytes / 2;
    const int64_t max_batch = MaxBatch(a, batch);
    const int64_t need = RequiredWindowBytes(world, max_batch, hidden, topk, spread);
    if (need <= have) return ACL_SUCCESS;
    const int64_t need_mb = (need + (1 << 20) - 1) >> 20;
    return Fail(kInnerError,
                "%s: HCCL_BUFFSIZE is too SMALL: the group has %ld MB, NEEDED_HCCL_BUFFSIZE = %ld "
                "MB (%ld bytes for max_bs=%ld, H=%ld, K=%ld, ep_world_size=%ld, "
                "moe_expert_num=%ld); on every rank: export HCCL_BUFFSIZE=%ld",
                op, have >> 20, need_mb, need, max_batch, hidden, topk, a.ep_world_size,
                a.moe_expert_num, need_mb);
}

}  // namespace ascend_moe
