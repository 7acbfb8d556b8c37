"""The same round trip as one compiled graph: torch.compile with torchair, on 16 ranks.

On 16 NPUs:           python examples/graph.py
On the virtual NPU:   ascend-moe run examples/graph.py

With --install every call is checked against the documented constraints first.
"""

import torch
import torch_npu
import torchair
from deployment import ATTRIBUTES, check, factor, join, launch, leave, tokens


class MoeLayer(torch.nn.Module):
    """Dispatch, this rank's expert, combine."""

    def __init__(self, rank: int, group: str):
        super().__init__()
        self.factor = factor(rank)
        self.attributes = {**ATTRIBUTES, "group_ep": group, "ep_rank_id": rank}

    def forward(self, x, expert_ids, expert_scales):
        """(BS, H) tokens in, (BS, H) tokens out."""
        expand_x, _, assist_info, _, ep_counts, _, _ = torch_npu.npu_moe_distribute_dispatch_v2(
            x=x, expert_ids=expert_ids, **self.attributes
        )
        return torch_npu.npu_moe_distribute_combine_v2(
            expand_x=expand_x * self.factor,
            expert_ids=expert_ids,
            assist_info_for_combine=assist_info,
            ep_send_counts=ep_counts,
            expert_scales=expert_scales,
            **self.attributes,
        )


def run_rank(rank: int, port: int, install: bool) -> None:
    """One rank of the deployment."""
    if install:
        import ascend_moe

        ascend_moe.install()
    group = join(rank, port)
    backend = torchair.get_npu_backend(compiler_config=torchair.CompilerConfig())
    layer = torch.compile(MoeLayer(rank, group), backend=backend, dynamic=False, fullgraph=True)
    output = layer(*(tensor.npu() for tensor in tokens(rank)))
    check(rank, output)
    leave()


if __name__ == "__main__":
    launch(run_rank)
