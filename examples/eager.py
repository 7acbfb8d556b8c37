"""Dispatch, experts, combine, one operator after the other, on 16 ranks.

On 16 NPUs:           python examples/eager.py
On the virtual NPU:   ascend-moe run examples/eager.py

With --install every call is checked against the documented constraints first.
"""

import torch_npu
from deployment import ATTRIBUTES, check, factor, join, launch, leave, tokens


def run_rank(rank: int, port: int, install: bool) -> None:
    """One rank of the deployment."""
    if install:
        import ascend_moe

        ascend_moe.install()
    group = join(rank, port)
    x, expert_ids, expert_scales = (tensor.npu() for tensor in tokens(rank))
    attributes = {**ATTRIBUTES, "group_ep": group, "ep_rank_id": rank}

    expand_x, _, assist_info, _, ep_counts, _, expand_scales = (
        torch_npu.npu_moe_distribute_dispatch_v2(x=x, expert_ids=expert_ids, **attributes)
    )
    output = torch_npu.npu_moe_distribute_combine_v2(
        expand_x=expand_x * factor(rank),
        expert_ids=expert_ids,
        assist_info_for_combine=assist_info,
        ep_send_counts=ep_counts,
        expert_scales=expert_scales,
        expand_scales=expand_scales,
        **attributes,
    )
    check(rank, output)
    leave()


if __name__ == "__main__":
    launch(run_rank)
